package cli

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"govah/evidence"
	"govah/evidence/tlog"
	"govah/evidence/tlog/serve"
	"govah/wire/host"
)

func (a *app) witnessCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "witness", Short: "Vouch for the logs of others, and for files that are carried to you", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.witnessServeCommand(), a.witnessSignCommand())
	return cmd
}

// witnessFlags are those of both commands.
type witnessFlags struct {
	key, name string
	logs      []string
}

func (w *witnessFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.key, "key", "", "file with the witness's private key, made at the first start")
	f.StringVar(&w.name, "name", "", "the witness's name, for a new key; checked with an old one")
	f.StringArrayVar(&w.logs, "log", nil, "the public key of a log that is watched, may be repeated")
}

// open opens the witness of a folder.
func (w *witnessFlags) open(dir string) (_ *serve.Witness, fresh bool, err error) {
	if w.key == "" {
		return nil, false, usage("for example --key witness.key; it is made at the first start", "a witness needs --key FILE")
	}
	skey, fresh, err := serve.KeyFile(w.key, w.name, true)
	if err != nil {
		return nil, false, keyHint(err, "--name", "witness.example.org")
	}
	opened, err := serve.OpenWitness(dir, skey, w.logs, fresh)
	if err != nil {
		return nil, false, folderHint(err)
	}
	return opened, fresh, nil
}

func (a *app) witnessServeCommand() *cobra.Command {
	var listen string
	w := &witnessFlags{}
	cmd := &cobra.Command{
		Use:   "serve DIR --key FILE --log KEY…",
		Short: "Run a witness of transparency logs",
		Long: `Runs a witness (c2sp.org/tlog-witness) until it is stopped. It signs that a log
only ever grows, and when: each checkpoint that continues what it has signed
before, and none that does not. What it has signed last is in the folder DIR,
on disk before a signature leaves. It sees sizes and hashes, and keeps no record
of who asks.

The first time give --name, such as witness.example.org: a key of that name is
made in FILE. Standard output has the line for policies and for the --witness of
logs: publish it. Never use the key with another folder or a restored old one:
the witness could sign two histories. Its clock must be right.

It speaks HTTP. Let a web server in front of it do TLS.`,
		Example: `  govah witness serve ./witness --key witness.key --name witness.example.org \
    --log log.example.org/evidence+5d41…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(w.logs) == 0 {
				return usage("give the key that the log's operator publishes, as --log KEY", "a witness without --log has nothing to watch")
			}
			opened, fresh, err := w.open(args[0])
			if err != nil {
				return err
			}
			defer opened.Close()
			listener, err := host.Listen(a.ctx, listen)
			if err != nil {
				return hint(fmt.Errorf("listening at %s: %w", listen, err), "is the port in use, or below 1024 and you are not root?")
			}
			fmt.Fprintf(a.out, "http://%s/\nwitness NAME %s\n", listener.Addr(), opened.VKey())
			if !a.quiet {
				if fresh {
					a.note("govah: a new key is in " + clean(w.key) + "; publish the line that begins with witness, with a name of your choice for NAME.")
				}
				a.note("govah: the witness is running. Ctrl-C stops it.")
			}
			return opened.Serve(a.ctx, listener)
		},
	}
	w.add(cmd)
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8481", "address and port to listen at")
	return cmd
}

func (a *app) witnessSignCommand() *cobra.Command {
	var output string
	w := &witnessFlags{}
	cmd := &cobra.Command{
		Use:   "sign DIR FILE --key FILE",
		Short: "Vouch, without a network, for a file that was carried to this device",
		Long: `Signs by when FILE existed, with this device's clock, without any network. FILE
is evidence from another device; or a proof from a log that lacks a witness; or
the request that a log would send to a witness (c2sp.org/tlog-witness).

Evidence is logged in a log of the witness's own, in the folder DIR, and the
proof is put into FILE, or written to -o. Standard output then has the policy
that it satisfies: give it to those who will verify. They have to trust this
witness alone; log the file in a log with more witnesses as soon as there is a
network (govah tlog add). Of the file nothing is kept but the SHA-256 of its
signed note.`,
		Example: `  govah witness sign ./witness case.govah --key witness.key --name friend.example
  govah witness sign ./witness case.tlog-proof --key witness.key --log KEY -o done.tlog-proof`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			data, err := a.readSealed(args[1])
			if err != nil {
				return err
			}
			var b *evidence.Bundle
			if bytes.HasPrefix(data, []byte(zipMagic)) {
				if b, err = evidence.Open(data); err != nil {
					return unverified(args[1], err)
				}
			} else if output == "" {
				return usage("give -o FILE for the result", "%s is no evidence that a proof could be put into", args[1])
			}
			opened, _, err := w.open(args[0])
			if err != nil {
				return err
			}
			defer opened.Close()
			if b == nil {
				signed, err := cosign(opened, data)
				if err != nil {
					return hint(fmt.Errorf("signing %s: %w", args[1], err), "the log must be one of --log, and continue what this witness has signed of it; a proof of a larger tree does not show that, a request (add-checkpoint) does")
				}
				if err := evidence.ReplaceFile(output, signed); err != nil {
					return hint(err, "is the disk full?")
				}
				return nil
			}
			proof, policy, err := opened.LogAlone(a.ctx, args[0], tlog.Entry(b.Entry))
			if err != nil {
				return hint(fmt.Errorf("signing %s: %w", args[1], err), "is the disk full, or the clock set back?")
			}
			p, err := tlog.ParsePolicy([]byte(policy))
			if err != nil {
				return err
			}
			got, err := tlog.VerifyProof(proof, b.Entry[:], p)
			if err != nil {
				return err
			}
			if err := a.keepProof(lang, args[1], output, b, proof, got); err != nil || a.json {
				return err
			}
			fmt.Fprint(a.out, "\n"+policy)
			return nil
		},
	}
	w.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "write the proof to this file, and leave FILE as it is")
	cmd.Flags().BoolVar(&a.json, "json", false, "print what was proved as one line of JSON")
	return cmd
}

// cosign signs a proof or a request that was carried to a witness.
func cosign(w *serve.Witness, data []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(data, []byte("c2sp.org/tlog-proof@v1\n")):
		return w.CosignProof(data)
	case bytes.HasPrefix(data, []byte("old ")):
		return w.AddCheckpoint(data)
	}
	return nil, errors.New("it is no evidence, no proof and no request to a witness")
}
