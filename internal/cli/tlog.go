package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"govah/evidence"
	"govah/evidence/tlog"
	"govah/evidence/tlog/serve"
	"govah/internal/i18n"
	"govah/report"
	"govah/wire/host"
)

const (
	policyBytes = 64 << 10
	policyHint  = "a policy is a text file that names the logs and witnesses that you believe; docs/formats/tlog-v1.md has an example"
)

func (a *app) tlogCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tlog", Short: "Log evidence so that it cannot be made later; run a log for others", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.tlogAddCommand(), a.tlogAttachCommand(), a.tlogServeCommand())
	return cmd
}

func (a *app) tlogServeCommand() *cobra.Command {
	var listen, key, origin string
	var witnesses []string
	var quorum int
	var rate float64
	cmd := &cobra.Command{
		Use:   "serve DIR --key FILE",
		Short: "Run a transparency log for evidence",
		Long: `Runs a transparency log (c2sp.org/tlog-tiles) in the folder DIR until it is
stopped. It holds SHA-256 hashes and nothing else: no name, no address, no
measurement. Who submits an entry gets a proof that it was there by a time, if
witnesses cosign the log: organisations that do not depend on yours.

The first time give --origin, a name for good, such as log.example.org/evidence:
a key of that name is made in FILE, for nobody else to read. Keep a copy of the
key offline and never run two copies of a log. Standard output has the line for
the policies of those who will verify: publish it.

It speaks HTTP. Let a web server in front of it do TLS, and set --rate 0 there
if all requests then come from one address.`,
		Example: `  govah tlog serve ./log --key log.key --origin log.example.org/evidence \
    --witness https://witness.example.net/=witness.example.net+8f1c…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" {
				return usage("for example --key log.key; it is made at the first start", "a log needs --key FILE")
			}
			var remote []*serve.RemoteWitness
			client := plainClient(0)
			for _, text := range witnesses {
				url, vkey, _ := strings.Cut(text, "=")
				w, err := serve.NewRemoteWitness(url, vkey, client)
				if err != nil {
					return usage("it is --witness URL=KEY, with the key that the witness's operator publishes", "--witness %s: %v", text, err)
				}
				remote = append(remote, w)
			}
			if !cmd.Flags().Changed("quorum") {
				quorum = (len(remote) + 1) / 2
			}
			if quorum < 0 || quorum > len(remote) {
				return usage("it is at most the number of --witness", "--quorum %d with %d witnesses", quorum, len(remote))
			}
			if rate < 0 {
				return usage("it is entries a second; 0 means no limit", "--rate %v", rate)
			}
			skey, fresh, err := serve.KeyFile(key, origin, false)
			if err != nil {
				return keyHint(err, "--origin", "log.example.org/evidence")
			}
			l, err := serve.Open(args[0], skey, fresh)
			if err != nil {
				return folderHint(err)
			}
			defer l.Close()
			listener, err := host.Listen(a.ctx, listen)
			if err != nil {
				return hint(fmt.Errorf("listening at %s: %w", listen, err), "is the port in use, or below 1024 and you are not root?")
			}
			fmt.Fprintf(a.out, "http://%s/\nlog %s\n", listener.Addr(), l.VKey())
			if !a.quiet {
				if fresh {
					a.note("govah: a new key is in " + clean(key) + "; keep a copy offline. Publish the line that begins with log: it goes into policies, and witnesses need it for --log.")
				}
				if len(remote) == 0 {
					a.note("govah: without --witness nobody vouches for the time, or that everybody is shown the same log.")
				}
				a.note(fmt.Sprintf("govah: the log has %d entries; it is served. Ctrl-C stops it.", l.Size()))
			}
			s := &serve.Server{Log: l, Witnesses: remote, Quorum: quorum, Rate: rate, Report: a.report}
			if err := s.Serve(a.ctx, listener); err != nil {
				return hint(err, "entries that were acknowledged are in the folder; look whether the disk is full, and start again")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:8480", "address and port to listen at")
	f.StringVar(&key, "key", "", "file with the log's private key, made at the first start")
	f.StringVar(&origin, "origin", "", "the log's name, for a new key; checked with an old one")
	f.StringArrayVar(&witnesses, "witness", nil, "a witness to ask, as URL=KEY; may be repeated")
	f.IntVar(&quorum, "quorum", 0, "witnesses that must have cosigned before a checkpoint is shown (default: half of them)")
	f.Float64Var(&rate, "rate", 5, "entries a second that one network (/24, /48) may add; 0: no limit")
	return cmd
}

// report prints what a server has to say, while it runs.
func (a *app) report(text string) { a.note("govah: " + unbroken(clean(text))) }

// plainClient is an HTTP client that follows no redirection: what is contacted
// is what was named.
func plainClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// keyHint says what to do about a key that cannot be had.
func keyHint(err error, flag, example string) error {
	if errors.Is(err, serve.ErrNoKey) {
		return hint(err, "to make one, give it a name: %s %s", flag, example)
	}
	return hint(err, "give the file that was made at the first start, readable by you")
}

// folderHint says what to do about a log or a witness that does not open.
func folderHint(err error) error {
	switch {
	case errors.Is(err, serve.ErrUsedKey):
		return hint(err, "give the folder that this key was used with. If it is lost, begin with a new key: a second history under one key is what a log must never sign")
	case errors.Is(err, serve.ErrLocked):
		return hint(err, "it is being served already; one process at a time")
	}
	return hint(err, "nothing was changed; restore the newest copy of the folder, or begin with a new key in a new one")
}

func (a *app) policy(path string) (*tlog.Policy, error) {
	if path == "" {
		return nil, usage(policyHint, "it takes --policy FILE to know whom to believe")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, hint(fmt.Errorf("reading the policy: %w", err), policyHint)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, policyBytes+1))
	if err != nil {
		return nil, hint(fmt.Errorf("reading the policy: %w", err), policyHint)
	}
	p, err := tlog.ParsePolicy(text)
	if err != nil {
		return nil, hint(fmt.Errorf("%s: %w", path, err), policyHint)
	}
	return p, nil
}

func (a *app) tlogAddCommand() *cobra.Command {
	var log, policy, output string
	var wait time.Duration
	var index int64
	cmd := &cobra.Command{
		Use:   "add FILE --log URL --policy FILE",
		Short: "Log a file of evidence, and put the proof into it",
		Long: `Sends the SHA-256 of the signed note of FILE (from govah check --seal or govah
seal) to a log, waits until enough witnesses have cosigned it, and puts the proof
into FILE. From then on anybody can check, without a network, by when it existed
(govah verify --policy).

The log learns that hash and the address that you connect from: nothing of what
is in the file. Over a network that is watched, the log's operator and whoever
sees the connection know that something was logged.

What the proof must have is for the policy to say. If it does not come in time
the entry is in the log nevertheless: run the same again later. With --index the
proof is made from the log's files alone, so that any copy of them will do.`,
		Example: "  govah tlog add case.govah --log https://log.example.org/ --policy policy.txt",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			u, err := logURL(log)
			if err != nil {
				return err
			}
			p, err := a.policy(policy)
			if err != nil {
				return err
			}
			b, err := a.bundle(args[0])
			if err != nil {
				return err
			}
			client, err := tlog.NewClient(u.String(), plainClient(30*time.Second))
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(a.ctx, wait)
			defer cancel()
			var proof []byte
			var got tlog.Proof
			if cmd.Flags().Changed("index") {
				proof, got, err = client.Prove(ctx, index, tlog.Entry(b.Entry), p)
			} else {
				proof, got, err = client.Add(ctx, tlog.Entry(b.Entry), p)
			}
			var pending *tlog.PendingError
			switch {
			case a.ctx.Err() != nil:
				return exitCode(exitInterrupted)
			case errors.As(err, &pending):
				return hint(err, "run the same again later, or with `--index %d` if only copies of the log's files are in reach", pending.Index)
			case err != nil:
				return hint(fmt.Errorf("logging %s: %w", args[0], err), "nothing was changed in the file; look at --log and --policy, or try again later")
			}
			if _, text, ok := bytes.Cut(proof, []byte("\n\n")); ok { // what is sealed next was not before it
				if err := keepCheckpoint(text); err != nil && !a.quiet {
					a.note("govah: the log's checkpoint could not be kept for what is sealed next: " + clean(err.Error()))
				}
			}
			return a.keepProof(lang, args[0], output, b, proof, got)
		},
	}
	f := cmd.Flags()
	f.StringVar(&log, "log", "", "the log's address (URL)")
	f.StringVar(&policy, "policy", "", "file with the logs and witnesses that are believed (c2sp.org/tlog-policy)")
	f.StringVarP(&output, "output", "o", "", "write the proof to this file, and leave FILE as it is")
	f.DurationVar(&wait, "wait", time.Minute, "how long to wait for the proof")
	f.Int64Var(&index, "index", 0, "the entry is in the log at this index: make the proof from the log's files")
	f.BoolVar(&a.json, "json", false, "print what was proved as one line of JSON")
	return cmd
}

func (a *app) tlogAttachCommand() *cobra.Command {
	var policy string
	cmd := &cobra.Command{
		Use:   "attach FILE PROOF --policy FILE",
		Short: "Put a proof that came otherwise into a file of evidence",
		Long: `Puts a proof (c2sp.org/tlog-proof) that a log holds FILE into it, if it is one by
the policy. It may come from govah tlog add -o or govah witness sign, by any way.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			p, err := a.policy(policy)
			if err != nil {
				return err
			}
			b, err := a.bundle(args[0])
			if err != nil {
				return err
			}
			proof, err := a.small(args[1])
			if err != nil {
				return err
			}
			got, err := tlog.VerifyProof(proof, b.Entry[:], p)
			if err != nil {
				return &hinted{err: fmt.Errorf("%s does not prove it: %w", args[1], err), hint: "it is of another file, or not sufficient for the policy", code: exitUnverified}
			}
			return a.keepProof(lang, args[0], "", b, proof, got)
		},
	}
	f := cmd.Flags()
	f.StringVar(&policy, "policy", "", "file with the logs and witnesses that are believed (c2sp.org/tlog-policy)")
	f.BoolVar(&a.json, "json", false, "print what was proved as one line of JSON")
	return cmd
}

// small reads a file that is a proof or the like.
func (a *app) small(path string) ([]byte, error) {
	f, err := a.open(a.ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return data, nil
}

// bundle reads a file of evidence that verifies.
func (a *app) bundle(path string) (*evidence.Bundle, error) {
	data, err := a.readSealed(path)
	if err != nil {
		return nil, err
	}
	b, err := evidence.Open(data)
	if err != nil {
		return nil, unverified(path, err)
	}
	return b, nil
}

// keepProof puts a proof that was verified into the bundle of path, or writes
// it to output, and says what it proves.
func (a *app) keepProof(lang i18n.Lang, path, output string, b *evidence.Bundle, proof []byte, got tlog.Proof) error {
	to := output
	if output != "" {
		if err := evidence.ReplaceFile(output, proof); err != nil {
			return hint(err, "is the disk full?")
		}
	} else {
		to = path
		with, err := b.Attach(evidence.LogProof, proof)
		if err != nil {
			return err
		}
		data, err := with.Bytes()
		if err != nil {
			return err
		}
		if path == "-" {
			_, err = a.out.Write(data)
			return err
		}
		if err := evidence.ReplaceFile(path, data); err != nil {
			return hint(err, "is the disk full? %s is as it was", path)
		}
	}
	at := ""
	if !got.Checkpoint.By.IsZero() {
		at = got.Checkpoint.By.Format(time.RFC3339)
	}
	if a.json {
		return a.line(map[string]any{"type": "logged", "schema": 1, "file": to, "entry": b.Entry[:], "log": got.Checkpoint.Origin,
			"index": got.Index, "size": got.Checkpoint.Size, "not_after": at, "witnesses": len(got.Checkpoint.Cosignatures)})
	}
	say := func(key string, args ...i18n.Arg) {
		fmt.Fprintln(a.out, report.Wrap(lang.Text("cli.tlog."+key, args...), 0, 2))
	}
	say("logged", i18n.LTR("file", to), i18n.LTR("log", clean(got.Checkpoint.Origin)), i18n.Num("n", int(got.Index)))
	if at == "" {
		say("no-time")
	} else {
		say("by", i18n.LTR("time", at), i18n.Num("n", len(got.Checkpoint.Cosignatures)))
	}
	return nil
}
