package known

import (
	_ "embed"
	"slices"
	"strconv"
	"sync"

	"govah/measure"
)

//go:embed hostkeys.csv
var hostKeysCSV []byte

// SSHHost is a server whose operator publishes the host keys that it shows.
type SSHHost struct {
	Name     string
	Port     int
	Operator string
	// Control says that it may stand beside a target of somebody else's: it is
	// meant for everybody and does not mind.
	Control bool
	Keys    []measure.HostKey
}

// A key has three more columns in the file: published is a day on which it was
// public (empty: the source gives none), verified how its fingerprint was come
// by (computed from the key that the source shows, or read there as such), and
// source where the operator, or a copy, says it.
var sshTable = sync.OnceValue(func() []SSHHost {
	var out []SSHHost
	for _, r := range readCSV("hostkeys.csv", hostKeysCSV, 11) {
		port, err := strconv.Atoi(r[2])
		if err != nil {
			panic("known: hostkeys.csv: row " + r[0] + " has no port")
		}
		i := slices.IndexFunc(out, func(h SSHHost) bool { return h.Name == r[1] && h.Port == port })
		if i < 0 {
			out = append(out, SSHHost{Name: r[1], Port: port, Operator: r[3], Control: r[8] == "yes"})
			i = len(out) - 1
		}
		out[i].Keys = append(out[i].Keys, measure.HostKey{Source: measure.SourcePublished, KeyType: r[4], Fingerprint: r[5], Retired: r[7] != "", Row: r[0]})
	}
	return out
})

// SSHHosts are the servers with published host keys, in the order of the file.
func SSHHosts() []SSHHost { return slices.Clone(sshTable()) }

// SSHHostsAsOf is the day on which the controls of the list were last compared
// with what their operators publish. What differs from a list that is old may
// have changed since. Here the sources were read as stored copies, which carry
// no day; this is the latest for which others say that they compared the same
// fingerprints of GitHub, GitLab and Codeberg (anvil-ssh, hostkey.rs; for
// Bitbucket it would be later).
const SSHHostsAsOf = "2026-04-11"
