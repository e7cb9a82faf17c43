package known

import (
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"govah/measure"
)

//go:embed roots.csv *.pem
var rootFiles embed.FS

// Root is one row about a certification authority that signs what it should
// not. Kinds: interception-root, national-root (used lawfully by its own
// list of names), device-root, and, known by name only, interception-dn,
// device-dn and product-dn.
type Root struct {
	ID         string
	Kind       string
	Name       string
	SHA256     string // of the DER certificate, lower-case hex, "" unknown
	SKI        string // subject key identifier, what its children name as AKI
	IssuerCN   string
	IssuerO    string
	IssuerC    string
	Own        []string // suffixes of names that are rightly its own
	Product    string
	Vendor     string
	Country    string
	Scope      measure.Scope
	Confidence int
	Source     string
	// Certificate to verify signatures with, nil where it is not published.
	Certificate *x509.Certificate
}

// Match is the row as a match.
func (r Root) Match() measure.Match {
	return measure.Match{Row: r.ID, Kind: r.Kind, Where: "certificate", Product: r.Product, Vendor: r.Vendor, Country: r.Country, Scope: r.Scope}
}

// Owns says whether host is a name for which this authority signs rightly.
func (r Root) Owns(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, s := range r.Own {
		if host == s || strings.HasSuffix(host, "."+s) {
			return true
		}
	}
	return false
}

var rootTable = sync.OnceValue(func() []Root {
	data, err := rootFiles.ReadFile("roots.csv")
	if err != nil {
		panic(err)
	}
	var out []Root
	for _, r := range readCSV("roots.csv", data, 16) {
		root := Root{
			ID: r[0], Kind: r[1], Name: r[2], SHA256: r[3], SKI: r[4], IssuerCN: r[5], IssuerO: r[6], IssuerC: r[7],
			Own: strings.Fields(r[9]), Product: r[10], Vendor: r[11], Country: r[12], Scope: measure.Scope(r[13]), Source: r[15],
		}
		if root.Confidence, err = strconv.Atoi(r[14]); err != nil {
			panic(fmt.Sprintf("known: roots.csv: row %s: %v", r[0], err))
		}
		if r[8] != "" {
			text, err := rootFiles.ReadFile(r[8])
			if err != nil {
				panic(err)
			}
			block, _ := pem.Decode(text)
			if block == nil {
				panic("known: " + r[8] + " holds no certificate")
			}
			if root.Certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
				panic("known: " + r[8] + ": " + err.Error())
			}
			if sum := sha256.Sum256(block.Bytes); hex.EncodeToString(sum[:]) != root.SHA256 {
				panic("known: " + r[8] + " is not the certificate of row " + r[0])
			}
		}
		out = append(out, root)
	}
	return out
})

// Roots lists all rows about authorities.
func Roots() []Root { return append([]Root(nil), rootTable()...) }

// InterceptionRoot finds the authority that a chain names: by the SHA-256
// (hex) of any certificate sent, by the leaf's or intermediate's authority
// key identifier (hex), or by the issuer's distinguished name as text
// ("CN=…,O=…,C=…"), in this order of strength. how is sha256, aki or dn; a
// name alone proves nothing, because anybody can write it.
func InterceptionRoot(issuer, aki string, sha256s []string) (root Root, how string, ok bool) {
	for _, sum := range sha256s {
		for _, r := range rootTable() {
			if r.SHA256 != "" && strings.EqualFold(sum, r.SHA256) {
				return r, "sha256", true
			}
		}
	}
	if aki != "" {
		for _, r := range rootTable() {
			if r.SKI != "" && strings.EqualFold(aki, r.SKI) {
				return r, "aki", true
			}
		}
	}
	dn := parseDN(issuer)
	var best *Root
	for i := range rootTable() {
		r := &rootTable()[i]
		if r.IssuerCN == "" && r.IssuerO == "" {
			continue
		}
		if r.IssuerCN != "" && r.IssuerCN != dn["CN"] || r.IssuerO != "" && r.IssuerO != dn["O"] && r.IssuerCN == "" ||
			r.IssuerC != "" && dn["C"] != "" && r.IssuerC != dn["C"] {
			continue
		}
		// A row that is about the name itself fits better than one whose key
		// is known and was not found.
		if best == nil || strings.HasSuffix(r.Kind, "-dn") && !strings.HasSuffix(best.Kind, "-dn") {
			best = r
		}
	}
	if best != nil {
		return *best, "dn", true
	}
	return Root{}, "", false
}

// parseDN reads the text form of RFC 2253, first value of each attribute.
func parseDN(s string) map[string]string {
	out := map[string]string{}
	if len(s) > 4096 {
		return out
	}
	var part strings.Builder
	flush := func() {
		k, v, ok := strings.Cut(part.String(), "=")
		k = strings.ToUpper(strings.TrimSpace(k))
		if _, twice := out[k]; ok && !twice {
			out[k] = strings.TrimSpace(v)
		}
		part.Reset()
	}
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			part.WriteByte(s[i])
		case c == '"':
			quoted = !quoted
		case (c == ',' || c == '+') && !quoted:
			flush()
		default:
			part.WriteByte(c)
		}
	}
	flush()
	return out
}
