// Command govah-man writes the manual of govah, one page a command, for those
// who package it: go run ./cmd/govah-man DIR. It is apart because what makes
// the pages would be a quarter of a megabyte in everybody's copy.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra/doc"

	"govah/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "govah-man: error: it takes one folder\ngovah-man: hint: for example: go run ./cmd/govah-man manual")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "govah-man: error: %v\ngovah-man: hint: choose a folder that you can write to\n", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return doc.GenManTree(cli.Command(), &doc.GenManHeader{Title: "GOVAH", Section: "1", Source: "govah " + cli.Version()}, dir)
}
