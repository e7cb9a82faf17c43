package ooni_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"govah/judge"
	"govah/measure"
	"govah/ooni"
	"govah/record"
)

// corpus writes a gzip file of OONI measurements of about size bytes unpacked,
// of real ones where they are at hand.
func corpus(tb testing.TB, size int) (path string, unpacked int) {
	tb.Helper()
	var lines [][]byte
	for _, name := range []string{"real", "scenarios"} {
		lines = append(lines, lineOf(name)...)
	}
	if lines == nil {
		tb.Log("../shared/data/ooni is not here: lines made up after the format are read")
		lines = [][]byte{madeUp(30 << 10), madeUp(2 << 10), madeUp(80 << 10)}
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	for unpacked < size {
		for _, line := range lines {
			w.Write(line)
			w.Write([]byte("\n"))
			unpacked += len(line) + 1
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	path = filepath.Join(tb.TempDir(), "ooni.jsonl.gz")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path, unpacked
}

// lineOf reads the lines of one file of real data, none where it is absent.
func lineOf(name string) (lines [][]byte) {
	f, err := os.Open("../../shared/data/ooni/" + name + ".jsonl.gz")
	if err != nil {
		return nil
	}
	defer f.Close()
	r, err := record.NewReader(f)
	if err != nil {
		return nil
	}
	for line, err := range r.Lines() {
		if err != nil {
			return nil
		}
		lines = append(lines, bytes.Clone(line.Data))
	}
	return lines
}

// madeUp is a measurement after the format, with a body of so many bytes.
func madeUp(body int) []byte {
	var text strings.Builder
	for i := 0; text.Len() < body; i++ {
		fmt.Fprintf(&text, "<p class=\"c%d\">word%d %x</p>\n", i%7, i*7919%1000, i*2654435761)
	}
	page, _ := json.Marshal(text.String())
	events := strings.Repeat(`{"address":"192.0.2.7:443","failure":null,"num_bytes":517,"operation":"write","proto":"tcp","t0":0.0372,"t":0.037208,"transaction_id":40001,"tags":["depth=0","fetch_body=true"]},`, 60)
	return []byte(strings.NewReplacer(`"BODY"`, string(page), `"network_events":[]`, `"network_events":[`+strings.TrimSuffix(events, ",")+`]`).Replace(sample))
}

func decompress(in io.Reader) error {
	r, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

// readAndJudge does what govah judge does.
func readAndJudge(in io.Reader) (judged, skipped int, err error) {
	r, err := record.NewReader(in)
	if err != nil {
		return 0, 0, err
	}
	type outcome struct {
		verdict measure.Verdict
		err     error
	}
	parsers := make([]ooni.Parser, 2*runtime.GOMAXPROCS(0))
	for x := range record.Ordered(r, len(parsers), func(worker int, line record.Line) outcome {
		p := &parsers[worker]
		m, err := p.Parse(line.Data)
		if err != nil {
			return outcome{err: err}
		}
		return outcome{verdict: judge.Judge(judge.Input{Measurement: m, Bodies: p.Body})}
	}) {
		var not *ooni.NotJudged
		switch {
		case x.Err != nil:
			return 0, 0, x.Err
		case errors.As(x.Value.err, &not):
			skipped++
		case x.Value.err != nil:
			return 0, 0, x.Value.err
		default:
			judged++
		}
	}
	return judged, skipped, nil
}

func decode(in io.Reader) error {
	r, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	d := json.NewDecoder(r)
	for {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// BenchmarkReadAndJudge compares reading and judging a gzip file with
// decompressing it alone, and with decompressing and decoding it with
// encoding/json: medians of interleaved runs.
func BenchmarkReadAndJudge(b *testing.B) {
	path, unpacked := corpus(b, 64<<20)
	var ours, alone, standard []time.Duration
	timed := func(into *[]time.Duration, f func(io.Reader) error) {
		in, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer in.Close()
		runtime.GC()
		start := time.Now()
		if err := f(in); err != nil {
			b.Fatal(err)
		}
		*into = append(*into, time.Since(start))
	}
	for b.Loop() {
		timed(&alone, decompress)
		timed(&ours, func(in io.Reader) error { _, _, err := readAndJudge(in); return err })
		timed(&standard, decode)
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return d[len(d)/2].Seconds()
	}
	b.ReportMetric(median(alone)/median(ours), "of-decompressing")
	b.ReportMetric(median(standard)/median(ours), "x-encoding/json")
	b.ReportMetric(float64(unpacked)/1e6/median(ours), "MB/s")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkParse(b *testing.B) {
	lines := lineOf("scenarios")
	if lines == nil {
		lines = [][]byte{madeUp(30 << 10)}
	}
	var p ooni.Parser
	n := 0
	for b.Loop() {
		n = 0
		for _, line := range lines {
			if _, err := p.Parse(line); err != nil {
				b.Fatal(err)
			}
			n += len(line)
		}
	}
	b.SetBytes(int64(n))
}
