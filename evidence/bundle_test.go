package evidence

import (
	"archive/zip"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// signer is a key made of a seed, so that vectors are the same each time.
func signer(t testing.TB, seed byte) (note.Signer, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)), "example.invalid/evidence")
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s, vkey
}

const (
	testMeasurements = `{"type":"run","schema":1,"run":"r1","tool":"govah","version":"0.1","started":"2026-11-28T04:00:00Z","lab":"iran-2017","targets":1,"helpers":["https://helper.example/x"]}
{"type":"measurement","schema":1,"run":"r1","id":"m1","target":"https://example.org/","started":"2026-11-28T04:00:01.204113Z","vantage":{"asn":64496,"country":"IR","network":"Example Net","tunnel":false,"proxy":false,"captive":false,"nat64":false,"clock_offset_ms":12},"view":{"capture":true},"screened":1,"observations":[{"id":"o1","step":"tls","role":"test","remote":"198.51.100.7:443","asn":64500,"sni":"example.org","start_us":41210,"took_us":40122,"sent":1790,"received":0,"failure":"connection_reset","detail":"read: \"reset\" \u0007"}],"complete":true,"elapsed_ms":1,"bytes_sent":1,"bytes_received":1}
{"test_name":"web_connectivity","input":"https://example.net/"}
{"type":"end","schema":1,"run":"r1","ended":"2026-11-28T04:00:09Z","measurements":1,"bytes_sent":1,"bytes_received":1}
`
	testReport = "<!doctype html><title>example.org from 192.0.2.7</title>"
)

// sealing is a small one of everything.
func sealing(t testing.TB) Sealing {
	t.Helper()
	s, vkey := signer(t, 1)
	return Sealing{
		Measurements: []byte(testMeasurements),
		Packets:      traffic(t, "192.0.2.7", "198.51.100.7", "203.0.113.53", "100.64.0.1", 40000, true),
		Own:          []netip.Addr{netip.MustParseAddr("192.0.2.7")},
		Report:       []byte(testReport),
		About:        About{Version: "0.1", Rules: "2026.1", Sealed: "2026-11-28T04:00:10Z"},
		Custody:      []Event{{Event: Collected, At: "2026-11-28T04:00:09Z", By: "A", Note: "at home"}},
		Checkpoint:   []byte("log.example/1\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— log.example/1 AAAAAAA=\n"),
		Receipts:     [][]byte{[]byte("a receipt\n")},
		Previous:     &Hash{1, 2, 3},
		Signer:       s, Key: vkey, secret: bytes.Repeat([]byte{9}, 32),
	}
}

func sealed(t testing.TB) []byte {
	t.Helper()
	data, err := Seal(sealing(t))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func opens(t testing.TB, data []byte) *Bundle {
	t.Helper()
	b, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func bytesOf(t testing.TB, b *Bundle) []byte {
	t.Helper()
	data, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSeal: a bundle opens, any ZIP tool reads it, and what was sealed is in
// it byte for byte; writing it again gives the same bytes.
func TestSeal(t *testing.T) {
	s := sealing(t)
	data := sealed(t)
	b := opens(t, data)
	if !bytes.Equal(bytesOf(t, b), data) {
		t.Error("written again it is another file")
	}
	if b.Key != s.Key || *b.Previous != *s.Previous || b.Entry != sha256.Sum256(b.note) {
		t.Errorf("%+v", b.Statement)
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name] = string(all)
	}
	for name, want := range map[string]string{MeasurementsName: testMeasurements, PacketsName: string(s.Packets), ReportName: testReport, CheckpointName: string(s.Checkpoint)} {
		if got["view/"+name] != want {
			t.Errorf("%s is not what was sealed", name)
		}
	}
	if about := got["view/"+AboutName]; !strings.Contains(about, `"started":"2026-11-28T04:00:00Z","ended":"2026-11-28T04:00:09Z"`) || !strings.Contains(about, `"lab":"iran-2017"`) {
		t.Error(about)
	}
	again, err := Seal(Sealing{Measurements: s.Measurements, Signer: s.Signer, Key: s.Key})
	if err != nil {
		t.Fatal(err)
	}
	other, err := Seal(Sealing{Measurements: s.Measurements, Signer: s.Signer, Key: s.Key})
	if err != nil || opens(t, again).Root == opens(t, other).Root {
		t.Errorf("two bundles of the same have the same salts: %v", err)
	}
}

// TestWithheldByClass: every set of classes, withheld at once or one after
// the other, keeps signature and root, and is never larger.
func TestWithheldByClass(t *testing.T) {
	data := sealed(t)
	full := opens(t, data)
	for set := range 1 << (classes - 1) {
		var away []Class
		for c := 1; c < classes; c++ {
			if set>>(c-1)&1 != 0 {
				away = append(away, Class(c))
			}
		}
		b := full.Withhold(away...)
		out := bytesOf(t, b)
		if len(out) > len(data) {
			t.Errorf("%v: %d bytes, %d before", away, len(out), len(data))
		}
		again := opens(t, out)
		if again.Entry != full.Entry {
			t.Errorf("%v: another note", away)
		}
		step := full
		for _, c := range away {
			step = step.Withhold(c)
		}
		if !bytes.Equal(bytesOf(t, step), out) {
			t.Errorf("%v: one after the other gives another file", away)
		}
		if !slices.Equal(b.entries, full.entries) && len(again.File(ReportName).Data) > 0 {
			t.Errorf("%v: the report is still there", away)
		}
	}
}

// TestNeverLarger: whatever few leaves of whatever short values there are.
func TestNeverLarger(t *testing.T) {
	s, vkey := signer(t, 1)
	seal := Sealing{Signer: s, Key: vkey}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		f := File{Name: "a", Kind: Text}
		for c := range classes {
			for range rng.IntN(20) {
				n := 1 + rng.IntN(2)
				f.Segments = append(f.Segments, Segment{None, 1}, Segment{Class(c), n})
				f.Data = append(f.Data, '"')
				f.Data = append(f.Data, make([]byte, n)...)
			}
		}
		rng.Shuffle(len(f.Segments)/2, func(i, j int) {
			f.Segments[2*i+1], f.Segments[2*j+1] = f.Segments[2*j+1], f.Segments[2*i+1]
		})
		for at, i := 0, 0; i < len(f.Segments); i++ { // quotation marks where values begin
			if i%2 == 0 {
				f.Data[at] = '"'
			} else {
				for j := range f.Segments[i].Length {
					f.Data[at+j] = 'x'
				}
			}
			at += f.Segments[i].Length
		}
		f.setSize()
		data, err := seal.seal([]File{f})
		if err != nil {
			continue // no leaf at all
		}
		full := opens(t, data)
		for range 10 {
			var away []Class
			for c := 1; c < classes; c++ {
				if rng.IntN(2) == 0 {
					away = append(away, Class(c))
				}
			}
			if out := bytesOf(t, full.Withhold(away...)); len(out) > len(data) {
				t.Fatalf("%v of %v: %d bytes, %d before", away, full.Counts, len(out), len(data))
			}
		}
	}
}

// small is a bundle of a few leaves of every kind; the salts are made of a seed.
func small(t testing.TB, seed byte) []byte {
	t.Helper()
	s, vkey := signer(t, 1)
	capture := traffic(t, "192.0.2.7", "198.51.100.7", "203.0.113.53", "100.64.0.1", 40000, true)
	packets, err := Captured(PacketsName, capture[:48+32+96], nil) // one of them whole
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(testMeasurements, "\n")
	seal := Sealing{Signer: s, Key: vkey, Previous: &Hash{1, 2, 3}, secret: bytes.Repeat([]byte{seed}, 32)}
	data, err := seal.seal([]File{packets, Measurements(MeasurementsName, []byte(first+"\n"+`{"type":"measurement","vantage":{"asn":64496,"country":"IR","clock_offset_ms":12},"target":"https://example.org/"}`+"\n")),
		wholeFile(ReportName, []byte(testReport), Rendering), {Name: "empty", Kind: Text}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// forge is a bundle with its members changed, in a container that is right.
func forge(t testing.TB, data []byte, change func(m []member) []member) []byte {
	t.Helper()
	members, err := parseContainer(data)
	if err != nil {
		t.Fatal(err)
	}
	out, err := encodeContainer(change(slices.Clone(members)))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// raw is a container with anything in it.
func raw(members ...member) []byte {
	var b, central []byte
	for _, m := range members {
		sum := crc32.ChecksumIEEE(m.data)
		central = appendCentral(central, m.name, sum, len(m.data), len(b))
		b = append(appendLocal(b, m.name, sum, len(m.data)), m.data...)
	}
	return appendEnd(append(b, central...), len(members), len(central), len(b))
}

func replaced(m []member, name string, data []byte) []member {
	for i := range m {
		if m[i].name == name {
			m[i].data = data
		}
	}
	return m
}

// bad is a file that is no bundle, and a part of what is said of it.
type bad struct {
	name, says string
	data       []byte
}

// badBundles are made by hand, each with one thing wrong.
func badBundles(t testing.TB) []bad {
	full := small(t, 9)
	red := bytesOf(t, opens(t, full).Withhold(Client, Location))
	members, err := parseContainer(full)
	if err != nil {
		t.Fatal(err)
	}
	note := string(members[0].data)
	table := members[1].data
	with := func(name string, data []byte) []byte {
		return forge(t, full, func(m []member) []member { return replaced(m, name, data) })
	}
	entries := opens(t, full).entries
	swapped := slices.Clone(entries)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	wrong := slices.Clone(entries)
	for i := range wrong {
		if wrong[i].Class == Client {
			wrong[i] = Entry{Class: Client}
		}
	}
	long := slices.Clone(table)
	long[1+SaltBytes] = 0x80
	_, key := signer(t, 1)
	_, otherKey := signer(t, 2)
	theirs, _ := parseContainer(small(t, 3))
	zipped := func(f func(w *zip.Writer)) []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		f(w)
		w.Close()
		return b.Bytes()
	}
	spare := []byte(note)
	spare[len(spare)-3]++ // the last character before = has bits to spare
	unpadded := bytes.TrimRight(table, "\x00")
	one := []Entry{{Open: true, Length: 2}}
	return []bad{
		{"empty", "does not begin", nil},
		{"text", "does not begin", []byte("evidence\n")},
		{"truncated", "not the directory", full[:len(full)-1]},
		{"truncated-half", "cut off", full[:len(full)/2]},
		{"trailing", "not the directory", append(slices.Clone(full), 0)},
		{"leading", "does not begin", append([]byte{0}, full...)},
		{"twice", "not the directory", append(slices.Clone(full), full...)},
		{"duplicate-name", "twice", raw(slices.Insert(slices.Clone(members), 1, members[0])...)},
		{"unsorted", "out of order", raw(slices.Concat(members[:2], []member{members[3], members[2]}, members[4:])...)},
		{"path-parent", "a name that none", raw(slices.Insert(slices.Clone(members), len(members), member{"view/../x", []byte("x")})...)},
		{"path-absolute", "a name that none", raw(member{"/etc/passwd", []byte("x")}, members[0])},
		{"path-backslash", "a name that none", raw(member{`a\b`, []byte("x")}, members[0])},
		{"path-dot", "a name that none", raw(member{".hidden", []byte("x")}, members[0])},
		{"extra-file", "is not signed", raw(append(slices.Clone(members), member{"view/zzz", []byte("x")})...)},
		{"extra-proof", "no proof that a bundle", raw(slices.Insert(slices.Clone(members), 2, member{"proof/x.txt", []byte("x")})...)},
		{"empty-proof", "0 bytes", raw(slices.Insert(slices.Clone(members), 2, member{"proof/log.tlog-proof", nil})...)},
		{"missing-file", "is not there", raw(members[:len(members)-1]...)},
		{"missing-note", "does not begin with bundle.note", raw(members[1:]...)},
		{"missing-table", "does not begin with bundle.note", raw(slices.Delete(slices.Clone(members), 1, 2)...)},
		{"deflated", "header", zipped(func(w *zip.Writer) {
			for _, m := range members {
				f, _ := w.Create(m.name)
				f.Write(m.data)
			}
		})},
		{"bomb", "", zipped(func(w *zip.Writer) {
			f, _ := w.Create("bundle.note")
			f.Write(make([]byte, 8<<20))
		})},
		{"crc", "CRC", func() []byte { b := slices.Clone(full); b[localBytes+len(noteName)+5] ^= 1; return b }()},
		{"value", "root", with("view/"+ReportName, []byte(strings.Replace(testReport, "192.0.2.7", "192.0.2.8", 1)))},
		{"value-longer", "does not follow", with("view/"+ReportName, []byte(testReport+" "))},
		{"value-gone", "does not follow", with("view/"+ReportName, nil)},
		{"note-changed", "signature is wrong", with(noteName, []byte(strings.Replace(note, "AQID", "AQIE", 1)))},
		{"note-count", "signature is wrong", with(noteName, []byte(strings.Replace(note, "leaves client ", "leaves client 1", 1)))},
		{"note-file", "signature is wrong", with(noteName, []byte(strings.Replace(note, "file whole 1 report.html", "file binary 1 report.html", 1)))},
		{"note-line", "not understood", with(noteName, []byte(strings.Replace(note, "\n\n", "\nsomething\n\n", 1)))},
		{"note-unsigned", "no signature", with(noteName, []byte(note[:strings.Index(note, "\n\n")+1]))},
		{"note-two-signatures", "and no other", with(noteName, []byte(note+note[strings.Index(note, "—"):]))},
		{"note-spare-bits", "and no other", with(noteName, spare)},
		{"note-crlf", "no signature", with(noteName, []byte(strings.ReplaceAll(note, "\n", "\r\n")))},
		{"note-other-version", "another version", with(noteName, []byte(strings.Replace(note, "v1", "v9", 1)))},
		{"note-of-another", "root", with(noteName, theirs[0].data)},
		{"key-swapped", "by the key that it names", with(noteName, []byte(strings.Replace(note, key, otherKey, 1)))},
		{"algorithm", "algorithm", with(noteName, []byte(strings.Replace(note, key, "example.invalid/evidence+01020304+BgECAwQ=", 1)))},
		{"table-short", "", with(tableName, table[:len(table)-slack-1])},
		{"table-no-slack", "must be", with(tableName, table[:len(table)-slack])},
		{"table-slack", "zeroes", with(tableName, append(slices.Clone(table[:len(table)-1]), 1))},
		{"table-unpadded", "", with(tableName, unpadded)},
		{"table-reordered", "out of order", with(tableName, encodeTable(swapped))},
		{"table-varint", "shortest", with(tableName, slices.Insert(long, 1+SaltBytes+1, 0))},
		{"table-subtree", "no subtree", with(tableName, append([]byte{30}, table[1:]...))},
		{"table-withheld-wrong", "does not follow", with(tableName, encodeTable(wrong))},
		{"two-at-one-place", "does not follow", func() []byte {
			text := header + "\nkey " + key + "\nroot AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nleaves none 1\nleaves target 1\nfile text 2 a\n"
			return signedText(t, text, encodeTable([]Entry{{Open: true, Length: 1}, {Open: true, Class: Target, Length: 1}}), []byte("ab"))
		}()},
		{"beyond-the-end", "does not follow", func() []byte {
			text := header + "\nkey " + key + "\nroot AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nleaves none 1\nfile binary 2 a\n"
			return signedText(t, text, encodeTable([]Entry{{Open: true, Length: 2, Position: 1}}), []byte("\x00ab"))
		}()},
		{"overlapping", "does not follow", func() []byte {
			text := header + "\nkey " + key + "\nroot AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nleaves none 1\nleaves target 1\nfile binary 3 a\n"
			return signedText(t, text, encodeTable([]Entry{{Open: true, Length: 2}, {Open: true, Class: Target, Length: 2, Position: 1}}), []byte("abc"))
		}()},
		{"not-collapsed", "one hash must stand for", func() []byte {
			text := header + "\nkey " + key + "\nroot AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nleaves target 2\nfile binary 2 a\n"
			return signedText(t, text, encodeTable([]Entry{{Class: Target}, {Class: Target}}), []byte{0, 0})
		}()},
		{"placeholder-text", "missing", signedOver(t, one, "file text 4 a\n", []byte("ab"), "000")},
		{"placeholder-binary", "missing", signedOver(t, one, "file binary 5 a\n", []byte("ab"), "\x00\x00\x00")},
		{"placeholder-whole", "missing", signedOver(t, one, "file text 1 a\nfile whole 1 b\n", []byte("ab"), "", member{"view/b", nil})},
		{"placeholder-too-many", "missing", func() []byte {
			entries := []Entry{{Open: true, Length: 2}, {Class: Target}}
			return signedOver(t, entries, "leaves target 1\nfile text 3 a\n", []byte("ab"), "00")
		}()},
		{"a-leaf-of-no-file", "there are 1", func() []byte {
			text := header + "\nkey " + key + "\nroot AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nleaves target 1\nfile binary 0 a\n"
			return signedText(t, text, encodeTable([]Entry{{Open: true, Class: Target, File: 1, Length: 1}}), nil)
		}()},
		{"redacted-note", "", forge(t, red, func(m []member) []member { return replaced(m, tableName, table) })},
		{"redacted-filled", "does not follow", forge(t, red, func(m []member) []member { return replaced(m, "view/"+PacketsName, members[len(members)-2].data) })},
		{"redacted-placeholder", "", func() []byte {
			for _, m := range func() []member { m, _ := parseContainer(red); return m }() {
				if m.name == "view/"+MeasurementsName {
					return forge(t, red, func(all []member) []member {
						return replaced(all, m.name, bytes.Replace(m.data, []byte(withheldText), []byte("RU"), 1))
					})
				}
			}
			return nil
		}()},
	}
}

// signedText is a bundle of one file by a key that signs anything.
func signedText(t testing.TB, text string, table, view []byte) []byte {
	t.Helper()
	s, _ := signer(t, 1)
	n, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		t.Fatal(err)
	}
	return raw(member{noteName, n}, member{tableName, table}, member{"view/a", view})
}

// signedOver is a bundle that is right in all but what its files hold: its
// first leaf is of class none and is value, and placeholders follow that.
func signedOver(t testing.TB, entries []Entry, lines string, value []byte, placeholders string, more ...member) []byte {
	t.Helper()
	root, err := rootOf(entries, append([][]byte{value}, make([][]byte, len(entries)-1)...))
	if err != nil {
		t.Fatal(err)
	}
	_, key := signer(t, 1)
	text := header + "\nkey " + key + "\nroot " + base64.StdEncoding.EncodeToString(root[:]) + "\nleaves none 1\n" + lines
	members, err := parseContainer(signedText(t, text, encodeTable(entries), append(slices.Clone(value), placeholders...)))
	if err != nil {
		t.Fatal(err)
	}
	return raw(append(members, more...)...)
}

func TestBadBundles(t *testing.T) {
	for _, b := range badBundles(t) {
		_, err := Open(b.data)
		if err == nil || !strings.Contains(err.Error(), b.says) {
			t.Errorf("%s: %v; want %q", b.name, err, b.says)
		}
		if b.name == "algorithm" && !errors.Is(err, ErrAlgorithm) {
			t.Errorf("%v", err)
		}
	}
}

var mutations = flag.Int("mutations", 20_000, "how many mutated bundles TestMutations tries")

// mutate gives a file that differs from b in its bytes; other is a file of the
// same kind to take pieces from.
func mutate(r *rand.Rand, b, other []byte) []byte {
	at := func(n int) int { return r.IntN(max(n, 1)) }
	// Half of the changes are inside of members with the CRC and lengths made
	// right, so that what is behind the container is tried too.
	if r.IntN(2) == 0 {
		m, err := parseContainer(b)
		if err != nil {
			panic(err)
		}
		m = slices.Clone(m)
		o, err := parseContainer(other)
		if err != nil {
			panic(err)
		}
		i, j := at(len(m)), at(len(m))
		switch r.IntN(8) {
		case 0: // two members change places
			m[i].data, m[j].data = m[j].data, m[i].data
		case 1: // a member of the other file
			m[i].data = o[at(len(o))].data
		case 2: // twice
			m = slices.Insert(m, i, m[j])
		case 3: // gone
			m = slices.Delete(m, i, i+1)
		case 4: // another name
			name := []byte(m[i].name)
			name[at(len(name))] ^= 1 << r.IntN(8)
			m[i].name = string(name)
		default:
			m[i].data = scramble(r, m[i].data, o[at(len(o))].data)
		}
		return raw(m...)
	}
	return scramble(r, b, other)
}

// scramble changes bytes.
func scramble(r *rand.Rand, b, other []byte) []byte {
	c := slices.Clone(b)
	at := func(n int) int { return r.IntN(max(n, 1)) }
	n := 1 + r.IntN(40)
	switch r.IntN(10) {
	case 0, 1, 2: // one bit
		if len(c) > 0 {
			c[at(len(c))] ^= 1 << r.IntN(8)
		}
	case 3: // several
		for range 1 + r.IntN(4) {
			if len(c) > 0 {
				c[at(len(c))] ^= 1 << r.IntN(8)
			}
		}
	case 4:
		c = c[:at(len(c))]
	case 5: // inserted
		piece := make([]byte, n)
		if r.IntN(2) == 0 && len(other) > n {
			copy(piece, other[at(len(other)-n):])
		}
		c = slices.Insert(c, at(len(c)+1), piece...)
	case 6: // removed
		if i := at(len(c)); len(c) > 0 {
			c = slices.Delete(c, i, min(len(c), i+n))
		}
	case 7: // two pieces change places
		if len(c) > 2*n {
			i, j := at(len(c)-n), at(len(c)-n)
			p, q := slices.Clone(c[i:i+n]), slices.Clone(c[j:j+n])
			copy(c[i:], q)
			copy(c[j:], p)
		}
	case 8: // a number
		if len(c) >= 4 {
			i := at(len(c) - 3)
			binary.LittleEndian.PutUint32(c[i:], []uint32{0, 1, 0x7fffffff, 0xffffffff, uint32(len(c)), r.Uint32()}[r.IntN(6)])
		}
	case 9: // a piece of the other file
		if len(c) > n && len(other) > n {
			i := at(len(other) - n)
			copy(c[at(len(c)-n):], other[i:i+n])
		}
	}
	return c
}

// TestMutations: no file that differs from a bundle in any byte is taken for
// one. -mutations says how many are tried.
func TestMutations(t *testing.T) {
	full := opens(t, sealed(t))
	other := sealing(t)
	other.Measurements = []byte(strings.ReplaceAll(testMeasurements, "example", "elsewhere"))
	other.secret = bytes.Repeat([]byte{8}, 32)
	theirs, err := Seal(other)
	if err != nil {
		t.Fatal(err)
	}
	genuine := map[string]bool{}
	var files [][]byte
	few := opens(t, small(t, 9))
	for _, away := range [][]Class{nil, {Client}, {Location, Network, Time}, {Target, Foreign, Payload}, Classes()} {
		for _, source := range []*Bundle{full, opens(t, theirs), few, few} {
			data := bytesOf(t, source.Withhold(away...))
			files = append(files, data)
			genuine[string(data)] = true
		}
	}
	var tried, accepted atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 77))
			for i := w; i < *mutations; i += workers {
				m := mutate(r, files[r.IntN(len(files))], files[r.IntN(len(files))])
				for genuine[string(m)] { // nothing was changed
					m = mutate(r, files[r.IntN(len(files))], files[r.IntN(len(files))])
				}
				tried.Add(1)
				if _, err := Open(m); err == nil {
					accepted.Add(1)
					name := filepath.Join(os.TempDir(), fmt.Sprintf("accepted-%x.govah", sha256.Sum256(m)))
					os.WriteFile(name, m, 0o600)
					t.Errorf("accepted: %s", name)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d mutations of %d bundles of %d to %d bytes: %d accepted, in %v", tried.Load(), len(files), len(slices.MinFunc(files, func(a, b []byte) int { return len(a) - len(b) })),
		len(slices.MaxFunc(files, func(a, b []byte) int { return len(a) - len(b) })), accepted.Load(), time.Since(start).Round(time.Second))
}

// TestBoundedMemory: a file that says it is enormous costs no more than its
// own size.
func TestBoundedMemory(t *testing.T) {
	s, vkey := signer(t, 1)
	for _, text := range []string{
		fmt.Sprintf("%s\nkey %s\nroot AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nleaves target %d\nfile text %d a\n", header, vkey, maxLeaves, maxBytes),
		fmt.Sprintf("%s\nkey %s\nroot AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nleaves target %d\nfile binary %d a\n", header, vkey, maxLeaves, maxBytes),
		fmt.Sprintf("%s\nkey %s\nroot AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nleaves target 4294967295\nleaves time 4294967295\nfile binary 1 a\n", header, vkey),
	} {
		n, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		data := raw(member{noteName, n}, member{tableName, append([]byte{25}, make([]byte, 32)...)}, member{"view/a", []byte("x")})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = Open(data)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Error("accepted")
		}
		if grew := after.TotalAlloc - before.TotalAlloc; grew > 1<<20 {
			t.Errorf("%d bytes for a file of %d", grew, len(data))
		}
	}
}

func TestAttach(t *testing.T) {
	b := opens(t, sealed(t))
	with, err := b.Attach(LogProof, []byte("a proof\n"))
	if err != nil {
		t.Fatal(err)
	}
	with, err = with.Attach("tsa.tsr", []byte("a token"))
	if err != nil {
		t.Fatal(err)
	}
	again := opens(t, bytesOf(t, with))
	if string(again.Proofs[LogProof]) != "a proof\n" || string(again.Proofs["tsa.tsr"]) != "a token" || again.Entry != b.Entry {
		t.Errorf("%v", again.Proofs)
	}
	for _, name := range []string{"x", "../a.tsr", ".tsr", "a/b.tsr"} {
		if _, err := b.Attach(name, []byte("x")); err == nil {
			t.Errorf("%s was attached", name)
		}
	}
}

// TestWriteFile: whole or not at all, nobody else's, and nothing is
// overwritten.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.govah")
	if err := WriteFile(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("two")); err == nil {
		t.Error("overwritten")
	}
	if err := ReplaceFile(path, []byte("three")); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "none", "a"), []byte("x")); err == nil {
		t.Error("written into a folder that is not there")
	}
	st, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	list, _ := os.ReadDir(dir)
	if data, _ := os.ReadFile(path); string(data) != "three" || len(list) != 1 {
		t.Errorf("%s, %v", data, list)
	}
}

func FuzzOpen(f *testing.F) {
	full := sealed(f)
	f.Add(full)
	f.Add(bytesOf(f, opens(f, full).Withhold(Classes()...)))
	for _, b := range badBundles(f) {
		if len(b.data) < 1<<16 {
			f.Add(b.data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Open(data)
		if err != nil {
			return
		}
		if !bytes.Equal(bytesOf(t, b), data) {
			t.Fatal("another file says the same")
		}
	})
}

// FuzzSigned is of bundles by a key that signs anything.
func FuzzSigned(f *testing.F) {
	s, vkey := signer(f, 1)
	for _, b := range []*Bundle{opens(f, small(f, 9)), opens(f, small(f, 9)).Withhold(Client, Location), opens(f, small(f, 9)).Withhold(Classes()...)} {
		text := b.text()
		f.Add(text[strings.Index(text, "leaves"):], encodeTable(b.entries), b.File(MeasurementsName).Data)
	}
	// Two leaves of different classes at one place.
	f.Add("leaves none 1\nleaves target 1\nfile text 2 a\n", encodeTable([]Entry{{Open: true, Length: 1}, {Open: true, Class: Target, Length: 1}}), []byte("ab"))
	f.Fuzz(func(t *testing.T, body string, table, view []byte) {
		text := header + "\nkey " + vkey + "\nroot AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" + body
		st, err := parseStatement(text)
		if err != nil || len(st.Files) > 20 {
			return
		}
		signed, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		members := []member{{noteName, signed}, {tableName, table}}
		for _, f := range st.Files {
			members = append(members, member{viewFolder + f.Name, view})
		}
		data := raw(members...)
		if b, err := Open(data); err == nil {
			t.Fatalf("a root of zeroes: %+v", b.Statement)
		}
		// All up to the root, and what is made of it.
		entries, err := parseTable(table, st.Counts)
		if err != nil {
			return
		}
		for i := range st.Files {
			st.Files[i].Data = view
		}
		values, err := place(st.Files, entries)
		if err != nil {
			return
		}
		if _, err := rootOf(entries, values); err != nil {
			return
		}
		for i, f := range render(st.Files, entries, func(i int) []byte { return values[i] }) {
			if !bytes.Equal(f.Data, st.Files[i].Data) {
				t.Fatalf("%s: another file follows from the same leaves", f.Name)
			}
		}
	})
}

func FuzzNote(f *testing.F) {
	b := opens(f, sealed(f))
	f.Add(b.text())
	f.Add(header + "\nkey a\nroot AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nleaves none 1\nfile whole 1 a\n")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parseStatement(text); err == nil && s.text() != text {
			t.Fatalf("%q is read as %q", text, s.text())
		}
	})
}

// BenchmarkVerify is as a ratio to its floor: the same SHA-256 calls over the
// same bytes and the same ed25519 verification one after the other, and nothing
// else; with GOMAXPROCS=1 Verify does so too. Medians of interleaved runs. one-hash is against a single SHA-256 over the bytes of
// the values, which no format with leaves can reach.
func BenchmarkVerify(b *testing.B) {
	s, vkey := signer(b, 1)
	f := File{Name: "a", Kind: Text}
	rng := rand.New(rand.NewPCG(3, 4))
	const leaves, total = 500, 131 << 10
	for i := range leaves { // as in a measurement: values, and what is between
		f.Segments = append(f.Segments, Segment{Class(i % 2 * (1 + rng.IntN(classes-1))), total / leaves})
	}
	f.Data = make([]byte, leaves*(total/leaves))
	for i := range f.Data {
		f.Data[i] = byte(rng.Uint32())
	}
	f.setSize()
	seal := Sealing{Signer: s, Key: vkey}
	data, err := seal.seal([]File{f})
	if err != nil {
		b.Fatal(err)
	}
	bundle := opens(b, data)
	pub := ed25519.PublicKey(bundle.publicKey())
	text, sig := bundle.signed()
	inputs := make([][]byte, leaves)
	for i, v := range bundle.values {
		inputs[i] = make([]byte, SaltBytes+6+len(v))
		copy(inputs[i][SaltBytes+6:], v)
	}
	floor := func() {
		var outer [34]byte
		var node [65]byte
		for _, in := range inputs {
			h := sha256.Sum256(in)
			copy(outer[2:], h[:])
			h = sha256.Sum256(outer[:])
			copy(node[1:], h[:])
		}
		for range leaves - 1 {
			h := sha256.Sum256(node[:])
			copy(node[1:], h[:])
		}
		if !ed25519.Verify(pub, text, sig) {
			b.Fatal("the signature")
		}
	}
	one := func() {
		sha256.Sum256(f.Data)
		if !ed25519.Verify(pub, text, sig) {
			b.Fatal("the signature")
		}
	}
	verify := func() {
		if _, err := Verify(data, Check{Key: vkey}); err != nil {
			b.Fatal(err)
		}
	}
	var times [3][]time.Duration
	runs := []func(){verify, floor, one}
	for n := 0; b.Loop(); n++ {
		for k := range runs {
			i := (n + k) % len(runs) // what ran before leaves the cache as it is
			start := time.Now()
			runs[i]()
			times[i] = append(times[i], time.Since(start))
		}
	}
	median := func(t []time.Duration) float64 {
		slices.Sort(t)
		return float64(t[len(t)/2])
	}
	v := median(times[0])
	b.ReportMetric(v/1000, "µs/verify")
	b.ReportMetric(median(times[1])/v, "of-floor")
	b.ReportMetric(median(times[2])/v, "of-one-hash")
	b.ReportMetric(0, "ns/op")
}
