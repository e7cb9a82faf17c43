package tlog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Limits of a policy; the specification asks for 32 of each.
const (
	maxPolicy      = 64 << 10 // bytes
	maxPolicyLines = 128      // logs, witnesses and groups, each
)

// Policy says whose signatures make a checkpoint believable
// (c2sp.org/tlog-policy): any one of the logs, and a quorum of the witnesses.
type Policy struct {
	logs      []*logKey
	witnesses []*witnessKey
	quorum    *group // nil: no cosignature is asked for
}

// group is a witness, or k of several groups.
type group struct {
	witness int // index in the policy, if there are no members
	k       int
	members []*group
	used    bool // a member of another group already
}

// ParsePolicy reads a policy file.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > maxPolicy {
		return nil, fmt.Errorf("a policy of more than %d bytes", maxPolicy)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return nil, errors.New("the last line of the policy has no end")
	}
	for _, b := range text {
		if b < 0x20 && b != '\t' && b != '\n' || b == 0x7f {
			return nil, fmt.Errorf("the policy holds the control character %#02x", b)
		}
	}
	p := &policyReader{Policy: &Policy{}, names: map[string]*group{}}
	for i, line := range bytes.Split(text, []byte("\n")) {
		words := strings.FieldsFunc(string(line), func(r rune) bool { return r == ' ' || r == '\t' })
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := p.line(words); err != nil {
			return nil, fmt.Errorf("line %d of the policy: %w", i+1, err)
		}
	}
	if !p.decided {
		return nil, errors.New("the policy has no quorum line")
	}
	return p.Policy, nil
}

type policyReader struct {
	*Policy
	names   map[string]*group
	groups  int
	decided bool
}

func (p *policyReader) line(words []string) error {
	switch kind, rest := words[0], words[1:]; kind {
	case "log":
		if len(rest) < 1 || len(rest) > 2 {
			return errors.New("it is log VKEY [URL]")
		}
		key, err := newLogKey(rest[0])
		if err != nil {
			return err
		}
		if len(rest) == 2 {
			if _, err = ParseURL(rest[1]); err != nil {
				return err
			}
		}
		if slices.ContainsFunc(p.logs, func(o *logKey) bool { return o.key.Equal(key.key) }) {
			return errors.New("a log with this key is there already")
		}
		if p.logs = append(p.logs, key); len(p.logs) > maxPolicyLines {
			return errors.New("too many logs")
		}
		return nil
	case "witness":
		if len(rest) < 2 || len(rest) > 3 {
			return errors.New("it is witness NAME VKEY [URL]")
		}
		key, err := newWitnessKey(rest[1])
		if err != nil {
			return err
		}
		if len(rest) == 3 {
			if _, err = ParseURL(rest[2]); err != nil {
				return err
			}
		}
		if slices.ContainsFunc(p.witnesses, func(o *witnessKey) bool { return o.key.Equal(key.key) }) {
			return errors.New("a witness with this key is there already")
		}
		if p.witnesses = append(p.witnesses, key); len(p.witnesses) > maxPolicyLines {
			return errors.New("too many witnesses")
		}
		return p.define(rest[0], &group{witness: len(p.witnesses) - 1, k: 1})
	case "group":
		if len(rest) < 3 {
			return errors.New("it is group NAME all|any|COUNT MEMBER…")
		}
		g := &group{}
		for _, name := range rest[2:] {
			m, ok := p.names[name]
			switch {
			case !ok:
				return fmt.Errorf("no witness or group %q is defined above", name)
			case m.used:
				return fmt.Errorf("%q is a member already", name)
			}
			m.used = true
			g.members = append(g.members, m)
		}
		switch rest[1] {
		case "all":
			g.k = len(g.members)
		case "any":
			g.k = 1
		default:
			k, err := ParseDecimal(rest[1])
			if err != nil || k < 1 || k > int64(len(g.members)) {
				return fmt.Errorf("the count is all, any, or 1 to %d", len(g.members))
			}
			g.k = int(k)
		}
		if p.groups++; p.groups > maxPolicyLines {
			return errors.New("too many groups")
		}
		return p.define(rest[0], g)
	case "quorum":
		if len(rest) != 1 {
			return errors.New("it is quorum NAME")
		}
		if p.decided {
			return errors.New("there is a quorum line already")
		}
		p.decided = true
		if rest[0] == "none" {
			return nil
		}
		g, ok := p.names[rest[0]]
		if !ok {
			return fmt.Errorf("no witness or group %q is defined above", rest[0])
		}
		p.quorum = g
		return nil
	}
	return fmt.Errorf("%q is none of log, witness, group, quorum", words[0])
}

func (p *policyReader) define(name string, g *group) error {
	if name == "none" {
		return errors.New("the name none is taken by the language")
	}
	if _, ok := p.names[name]; ok {
		return fmt.Errorf("the name %q is there already", name)
	}
	p.names[name] = g
	return nil
}

// urls is the one form of URLs here: reading them in general differs from one
// library to the next. A host in brackets must be an IPv6 address besides.
var urls = regexp.MustCompile(`^https?://(?:[A-Za-z0-9._-]+|\[([0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?$`)

// ParseURL reads the URL of a log or a witness.
func ParseURL(s string) (string, error) {
	m := urls.FindStringSubmatch(s)
	if m != nil && m[1] != "" {
		if a, err := netip.ParseAddr(m[1]); err != nil || !a.Is6() {
			m = nil
		}
	}
	if m == nil {
		return "", fmt.Errorf("%q is no URL of a log or a witness", s)
	}
	return s, nil
}

// verifiers are all keys of the policy.
func (p *Policy) verifiers() note.Verifiers {
	var list []note.Verifier
	for _, l := range p.logs {
		list = append(list, l)
	}
	for _, w := range p.witnesses {
		list = append(list, w)
	}
	return note.VerifierList(list...)
}

// at returns the time that g yields if each witness has cosigned at its time,
// and whether g has cosigned at all. Of a group's members, ordered by time,
// the k-th from the front counts (first) or the k-th from the back.
func (g *group) at(times map[int]time.Time, first bool) (time.Time, bool) {
	if len(g.members) == 0 {
		t, ok := times[g.witness]
		return t, ok
	}
	var list []time.Time
	for _, m := range g.members {
		if t, ok := m.at(times, first); ok {
			list = append(list, t)
		}
	}
	if len(list) < g.k {
		return time.Time{}, false
	}
	slices.SortFunc(list, func(a, b time.Time) int { return cmp.Compare(a.Unix(), b.Unix()) })
	if first {
		return list[g.k-1], true
	}
	return list[len(list)-g.k], true
}

// String is the quorum in words of the policy's language, for accounts.
func (g *group) String() string {
	if len(g.members) == 0 {
		return "one witness"
	}
	return strconv.Itoa(g.k) + " of " + strconv.Itoa(len(g.members))
}
