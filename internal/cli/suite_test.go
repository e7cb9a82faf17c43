package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/lab"
	"govah/measure"
)

var (
	seeds  = flag.Int("seeds", 1, "run the suite with so many seeds")
	only   = flag.String("client", "", "run the suite for this client only")
	traces = flag.String("traces", "", "keep the output of runs that went wrong in this folder")
)

// suite is what the suite runs: scenario and client.
func suite(t testing.TB) (cases [][2]string) {
	for _, name := range lab.Names() {
		s, err := lab.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s.Clients {
			if *only == "" || *only == c.Name {
				cases = append(cases, [2]string{name, c.Name})
			}
		}
	}
	return cases
}

// rows are the truths that hold for a client.
func rows(t testing.TB, scenario, client string) map[string]*lab.Truth {
	s, err := lab.Load(scenario)
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, lab.Options{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.Truth()
}

// govah runs the command and gives the verdicts it printed.
func govah(ctx context.Context, args ...string) (verdicts []measure.Verdict, out string, code int, err error) {
	var stdout, stderr bytes.Buffer
	code = Main(ctx, args, strings.NewReader(""), &stdout, &stderr)
	for line := range strings.Lines(stdout.String()) {
		if strings.HasPrefix(line, `{"type":"verdict"`) {
			var v measure.Verdict
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				return nil, stdout.String(), code, err
			}
			verdicts = append(verdicts, v)
		}
	}
	if code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, stderr.String())
	}
	return verdicts, stdout.String(), code, err
}

// TestSuite runs every scenario for every client, with and without helpers,
// through the command that a user types, and holds the verdicts against what
// was really done.
func TestSuite(t *testing.T) {
	total, clean := 0, 0
	var mu sync.Mutex
	// Runs wait more than they compute, but a hundred targets at once compute
	// enough to disturb what is timed in another run: they count by size.
	limit := make(chan struct{}, 32)
	var turn sync.Mutex
	for _, c := range suite(t) {
		truth := rows(t, c[0], c[1])
		if len(truth) == 0 {
			continue
		}
		for _, r := range truth {
			total++
			if r.Interference == "none" {
				clean++
			}
		}
		for _, helpers := range []bool{true, false} {
			for seed := 1; seed <= *seeds; seed++ {
				name := fmt.Sprintf("%s/%s/helpers=%v/seed=%d", c[0], c[1], helpers, seed)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					size := min(1+len(truth)/8, cap(limit))
					turn.Lock()
					for range size {
						limit <- struct{}{}
					}
					turn.Unlock()
					defer func() {
						for range size {
							<-limit
						}
					}()
					dir := t.TempDir()
					args := []string{"check", "--lab", c[0], "--client", c[1], "--seed", strconv.Itoa(seed), "--json", "-o", dir + "/m.jsonl", "--deadline", "4m"}
					if !helpers {
						args = append(args, "--helper", "none")
					}
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
					defer cancel()
					began := time.Now()
					verdicts, out, _, err := govah(ctx, args...)
					if err != nil {
						t.Fatal(err)
					}
					problems := 0
					seen := map[string]bool{}
					for _, v := range verdicts {
						row := truth[v.Target]
						if row == nil {
							t.Errorf("%s: no truth for it", v.Target)
							continue
						}
						seen[v.Target] = true
						if p := row.Compare(v, helpers); p != "" {
							problems++
							if raced {
								t.Logf("%s: %s", v.Target, p)
							} else {
								t.Errorf("%s: %s", v.Target, p)
							}
						}
					}
					for target := range truth {
						if !seen[target] {
							problems++
							t.Errorf("%s: no verdict", target)
						}
					}
					t.Logf("%d rows, %d problems, %s", len(truth), problems, time.Since(began).Round(time.Millisecond))
					if problems > 0 && *traces != "" {
						mu.Lock()
						os.WriteFile(*traces+"/"+strings.ReplaceAll(name, "/", "_")+".jsonl", []byte(out), 0o600)
						mu.Unlock()
					}
				})
			}
		}
	}
	t.Logf("%d rows, %d of them clean", total, clean)
	if *only == "" && (total < 120 || clean < 45) {
		t.Errorf("%d rows, %d clean: the suite must have at least 120 and 45", total, clean)
	}
}

var soak = flag.Int("soak", 0, "check so many clean sites at 0 to 3 % loss and print the false accusations")

// TestSoak checks clean sites again and again on lossy lines. Without -soak it
// does a short run.
func TestSoak(t *testing.T) {
	n := *soak
	if n == 0 {
		n = 120
		if testing.Short() {
			t.Skip("short")
		}
	}
	s, err := lab.Load("gauntlet")
	if err != nil {
		t.Skip("no scenario gauntlet")
	}
	var targets []string
	for _, site := range s.Sites {
		for _, r := range site.Truth {
			if r.Interference == "none" && r.Decidable == "local" && r.Reachable == "yes" && slices.Contains(r.Clients, "main") {
				targets = append(targets, r.URL)
			}
		}
	}
	var (
		mu                                 sync.Mutex
		wg                                 sync.WaitGroup
		checked, lines, accused, unreached int
	)
	side := make(chan struct{}, 6) // rounds wait more than they compute
	for round := 0; round*len(targets) < n; round++ {
		list := targets[:min(len(targets), n-round*len(targets))]
		side <- struct{}{}
		wg.Go(func() {
			defer func() { <-side }()
			loss := round % 4 * 10 // per thousand
			var stdout, stderr bytes.Buffer
			a := &app{ctx: t.Context(), in: strings.NewReader(""), out: &stdout, err: &stderr, json: true, quiet: true}
			o := &checkOptions{lab: "gauntlet", client: "no-ipv6", seed: int64(round + 1), loss: loss, helpers: []string{"none"}, sets: sets}
			if round%2 == 1 {
				o.client = "main"
			}
			if err := a.check(nil, list, o); err != nil {
				t.Errorf("round %d: %v\n%s", round, err, stderr.String())
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for line := range strings.Lines(stdout.String()) {
				if !strings.HasPrefix(line, `{"type":"verdict"`) {
					continue
				}
				var v measure.Verdict
				if err := json.Unmarshal([]byte(line), &v); err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
				if v.Target == measure.LineTarget {
					lines++
				} else {
					checked++
				}
				if v.Interference == measure.InterferenceConfirmed || v.Interference == measure.InterferenceSuspected {
					accused++
					t.Errorf("round %d, loss %d per thousand: %s accused: %s %v", round, loss, v.Target, v.Interference, v.Findings)
				}
				if v.Reachable != measure.ReachableYes {
					unreached++
				}
			}
		})
	}
	wg.Wait()
	if checked != n {
		t.Errorf("%d sites checked, not %d", checked, n)
	}
	fmt.Printf("soak: %d clean site checks and %d of the line at 0 to 3 %% loss: %d false accusations, %d not reached\n", checked, lines, accused, unreached)
}
