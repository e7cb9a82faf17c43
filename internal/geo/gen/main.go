// Command gen writes the table of package geo from DB-IP's free databases of
// AS and country, as OONI publishes them in the Go module
// github.com/ooni/probe-assets. Only the module's data is read: its code is
// neither built nor run, and it is no requirement of this module.
//
//	go generate ./internal/geo              from the module proxy
//	go run ./internal/geo/gen -mmdb FILE    from a file of the same format
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The source, pinned: the module's hashes in the form of go.sum, and the
// database's own. The checksum database (sum.golang.org) had no entry for this
// version when it was first read, so the pin is of what was seen then and says
// that it has not changed since; see docs/design/geo.md.
const (
	sourceModule  = "github.com/ooni/probe-assets"
	sourceVersion = "v0.30.0"
	sourceSum     = "h1:EdolKgoACXbh2BkFhRc1GnQltt0DhiIfpiwEvgUO660="
	sourceModSum  = "h1:m0k2FFzcLfFm7dhgyYkLCUR3R0CoRPr0jcjctDS2+gU="
	sourceFile    = "assets/geoinfo.mmdb"
	sourceSHA256  = "e1adb3d15f7ebdc2cf5fc7eb6367abd737e8ded8f07b5b83735814639901be75"
)

func main() {
	mmdb := flag.String("mmdb", "", "read this file instead of the pinned module's")
	out := flag.String("o", "dbip.bin", "write the table here")
	flag.Parse()
	if err := run(*mmdb, *out); err != nil {
		fmt.Fprintf(os.Stderr, "gen: error: %v\n", err)
		os.Exit(1)
	}
}

func run(path, out string) error {
	if path == "" {
		var err error
		if path, err = source(); err != nil {
			return err
		}
	}
	src, err := read(path)
	if err != nil {
		return err
	}
	table, err := src.pack()
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, table, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "gen: %s: %s, %d + %d ranges, %d places, %d systems, %d bytes\n",
		out, src.version, len(src.v4), len(src.v6), len(src.places), len(src.names), len(table))
	return nil
}

// source finds the pinned database, downloading it if need be through the
// user's module proxy, in a module of its own.
func source() (string, error) {
	dir, err := os.MkdirTemp("", "govah-geo")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	sums := fmt.Sprintf("%s %s %s\n%[1]s %[2]s/go.mod %[4]s\n", sourceModule, sourceVersion, sourceSum, sourceModSum)
	for name, text := range map[string]string{"go.mod": "module source\n", "go.sum": sums} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	cmd := exec.Command("go", "mod", "download", "-json", sourceModule+"@"+sourceVersion)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	text, err := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if jsonErr := json.Unmarshal(text, &got); jsonErr != nil {
		return "", fmt.Errorf("go mod download %s: %w", sourceModule, errors.Join(err, jsonErr))
	}
	if got.Error != "" || err != nil {
		return "", fmt.Errorf("go mod download %s: %s", sourceModule, strings.TrimSpace(got.Error))
	}
	if got.Sum != sourceSum {
		return "", fmt.Errorf("%s@%s has hash %s, want %s", sourceModule, sourceVersion, got.Sum, sourceSum)
	}
	path := filepath.Join(got.Dir, filepath.FromSlash(sourceFile))
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != sourceSHA256 {
		return "", fmt.Errorf("%s has SHA-256 %x, want %s", path, sum, sourceSHA256)
	}
	return path, nil
}
