package cli

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes the manual, one page a command, for those who package
// govah.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a folder",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return hint(err, "choose a folder that you can write to")
			}
			if err := doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "GOVAH", Section: "1", Source: "govah " + Version()}, args[0]); err != nil {
				return hint(err, "choose a folder that you can write to")
			}
			return nil
		},
	}
}
