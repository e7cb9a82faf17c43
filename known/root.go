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
// list of names), device-root, product-key (the key of a product's own default
// authority), and, known by name only, interception-dn, device-dn and
// product-dn.
type Root struct {
	ID         string
	Kind       string
	Name       string
	SHA256     string // of the DER certificate, lower-case hex, "" unknown
	SKI        string // subject key identifier, what its children name as AKI
	SPKI       string // SHA-256 of its public key, lower-case hex
	IssuerCN   string // with * at its end: what it begins with
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
	for _, r := range readCSV("roots.csv", data, 17) {
		root := Root{
			ID: r[0], Kind: r[1], Name: r[2], SHA256: r[3], SKI: r[4], SPKI: r[5], IssuerCN: r[6], IssuerO: r[7], IssuerC: r[8],
			Own: strings.Fields(r[10]), Product: r[11], Vendor: r[12], Country: r[13], Scope: measure.Scope(r[14]), Source: r[16],
		}
		if root.Confidence, err = strconv.Atoi(r[15]); err != nil {
			panic(fmt.Sprintf("known: roots.csv: row %s: %v", r[0], err))
		}
		if r[9] != "" {
			text, err := rootFiles.ReadFile(r[9])
			if err != nil {
				panic(err)
			}
			block, _ := pem.Decode(text)
			if block == nil {
				panic("known: " + r[9] + " holds no certificate")
			}
			if root.Certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
				panic("known: " + r[9] + ": " + err.Error())
			}
			if sum := sha256.Sum256(block.Bytes); hex.EncodeToString(sum[:]) != root.SHA256 {
				panic("known: " + r[9] + " is not the certificate of row " + r[0])
			}
		}
		out = append(out, root)
	}
	return out
})

// Roots lists all rows about authorities.
func Roots() []Root { return append([]Root(nil), rootTable()...) }

// InterceptionRoot finds the authority that a chain names: by the SHA-256 of a
// certificate sent, by its public key, by the authority key identifier of any,
// or by the issuers' names, in this order of strength; how says which. A name
// alone proves nothing, because anybody can write it: where the row's key is
// known and the chain names another, how is measure.HowFamily.
func InterceptionRoot(t *measure.TLS) (root Root, how measure.How, ok bool) {
	if t == nil {
		return Root{}, "", false
	}
	table := rootTable()
	for _, sum := range t.Chain {
		for _, r := range table {
			if r.SHA256 != "" && strings.EqualFold(sum, r.SHA256) {
				return r, measure.HowSHA256, true
			}
		}
	}
	for _, s := range t.Signers {
		for _, r := range table {
			if r.SPKI != "" && strings.EqualFold(s.SPKI, r.SPKI) {
				return r, measure.HowSPKI, true
			}
		}
	}
	for _, s := range t.Signers {
		for _, r := range table {
			if r.SKI != "" && strings.EqualFold(s.AKI, r.SKI) {
				return r, measure.HowAKI, true
			}
		}
	}
	list := t.Signers
	if len(list) == 0 {
		list = []measure.Signer{{Issuer: t.Issuer}}
	}
	for _, s := range list {
		if r := rootNamed(parseDN(s.Issuer)); r != nil {
			if r.keyKnown() && s.AKI != "" {
				return *r, measure.HowFamily, true
			}
			return *r, measure.HowName, true
		}
	}
	return Root{}, "", false
}

// keyKnown says whether a key of this authority, or of others under its name,
// is in the table.
func (r *Root) keyKnown() bool {
	for _, x := range rootTable() {
		if x.IssuerCN == r.IssuerCN && x.IssuerO == r.IssuerO && (x.SKI != "" || x.SHA256 != "") {
			return true
		}
	}
	return false
}

// called says whether cn is the row's; one that ends in * begins it, where a
// product puts a date or a machine's name behind.
func (r *Root) called(cn string) bool {
	if begin, ok := strings.CutSuffix(r.IssuerCN, "*"); ok {
		return strings.HasPrefix(cn, begin)
	}
	return r.IssuerCN == cn
}

// rootNamed finds the row about a distinguished name, nil if there is none.
func rootNamed(dn map[string]string) (best *Root) {
	for i := range rootTable() {
		r := &rootTable()[i]
		if r.IssuerCN == "" && r.IssuerO == "" {
			continue
		}
		if r.IssuerCN != "" && !r.called(dn["CN"]) || r.IssuerO != "" && r.IssuerO != dn["O"] && r.IssuerCN == "" ||
			r.IssuerC != "" && dn["C"] != "" && r.IssuerC != dn["C"] {
			continue
		}
		// A row that is about the name itself fits better than one whose key
		// is known and was not found.
		if best == nil || strings.HasSuffix(r.Kind, "-dn") && !strings.HasSuffix(best.Kind, "-dn") {
			best = r
		}
	}
	return best
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
