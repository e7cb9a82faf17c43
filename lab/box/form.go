package box

import (
	"fmt"
	"slices"
	"strings"

	"govah/packet"
)

// Forms are all values of Rule.Blind, by layer: ways to write a trigger that a
// server understands, or nearly, and some devices do not.
var Forms = map[string][]string{
	"tls":  {"records", "upper", "small", "go", "mss"},
	"http": {"upper", "name-case", "no-space", "tab", "late", "long", "absolute", "http10", "head", "method-case", "port", "dot", "second", "mss", "twice", "lf", "wide"},
	"dns":  {"upper", "tcp", "no-edns"},
	"quic": {"upper", "large", "behind"},
}

const (
	mlkem768   = 0x11ec // X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem)
	longTarget = 1024   // bytes
	smallMSS   = 1000   // below it is what no ordinary client announces
)

// sees says whether what a rule is blind to are forms of its layer.
func (r Rule) sees() error {
	known := Forms[r.Layer]
	if len(r.Blind) > 0 && known == nil {
		return fmt.Errorf("blind-to needs layer tls, http, dns or quic, not %s", r.Layer)
	}
	for _, s := range r.Blind {
		if !slices.Contains(known, s) {
			return fmt.Errorf("blind-to %q is not known in layer %s; it is one of: %s", s, r.Layer, strings.Join(known, ", "))
		}
	}
	return nil
}

// blind says whether the device does not understand a trigger in these forms,
// in a flow of which it has seen the beginning, or nil.
func (r *rule) blind(forms []string, fl *flow) bool {
	if fl != nil && fl.mss > 0 && fl.mss < smallMSS && slices.Contains(r.Blind, "mss") {
		return true
	}
	return slices.ContainsFunc(r.Blind, func(s string) bool { return slices.Contains(forms, s) })
}

// forms collects those that hold.
type forms []string

func (f *forms) add(holds bool, form string) {
	if holds {
		*f = append(*f, form)
	}
}

func hasUpper(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return c >= 'A' && c <= 'Z' })
}

// quicLabel is of a ClientHello that took so many datagrams, the first of which
// came at a place in its flow, from 1.
func quicLabel(h *packet.ClientHello, datagrams, place int) label {
	l := label{layer: "quic", name: h.SNI, ech: h.ECH, esni: h.ESNI, extensions: h.Extensions}
	var f forms
	f.add(hasUpper(h.SNIAsSent), "upper")
	f.add(datagrams > 1, "large")
	f.add(place > 1, "behind")
	l.forms = f
	return l
}

// helloLabel is for layer tls. What the rest of a ClientHello may still hold is
// not taken to be missing: the groups come anywhere, the cipher suites before
// any name.
func helloLabel(h *packet.ClientHello) label {
	l := label{layer: "tls", name: h.SNI, ech: h.ECH, esni: h.ESNI, extensions: h.Extensions}
	const supportedGroups = 10
	var f forms
	f.add(h.Spread, "records")
	f.add(hasUpper(h.SNIAsSent), "upper")
	f.add((h.Complete || slices.Contains(h.Extensions, supportedGroups)) && !slices.Contains(h.Groups, mlkem768) && !slices.Contains(h.KeyShares, mlkem768), "small")
	f.add(!slices.ContainsFunc(h.Suites, packet.GREASE) && !slices.ContainsFunc(h.Extensions, packet.GREASE), "go")
	l.forms = f
	return l
}

// requestLabel reads the name where the device does, in the target if there is
// one, and looks there for how it is written. further says that the request is
// not the first of its connection.
func requestLabel(r *packet.Request, further bool) label {
	var f forms
	written := r.Authority
	if written == "" {
		written = strings.TrimSpace(r.HostValue)
		if written != "" {
			gap := r.HostValue[:len(r.HostValue)-len(strings.TrimLeft(r.HostValue, " \t"))]
			f.add(gap == "", "no-space")
			f.add(strings.Contains(gap, "\t"), "tab")
			f.add(r.HostName != "Host", "name-case")
			f.add(r.HostLine > 1, "late")
		}
	}
	name := r.Name()
	f.add(hasUpper(written), "upper")
	f.add(strings.Contains(written[strings.LastIndex(written, "]")+1:], ":"), "port") // "]" ends an IPv6 address
	f.add(strings.HasSuffix(name, "."), "dot")
	f.add(r.Authority != "", "absolute")
	f.add(len(r.Target) > longTarget, "long")
	f.add(r.Version == "HTTP/1.0", "http10")
	f.add(strings.EqualFold(r.Method, "HEAD"), "head")
	f.add(r.Method != strings.ToUpper(r.Method), "method-case")
	f.add(further, "second")
	f.add(r.Hosts > 1, "twice")
	f.add(r.BareLF, "lf")
	f.add(r.Wide, "wide")
	return label{layer: "http", name: strings.TrimSuffix(name, "."), path: r.Target, forms: f}
}

// questionLabel is of a question, or of the answer that repeats it.
func questionLabel(q *packet.Question, proto uint8) label {
	var f forms
	f.add(hasUpper(q.NameAsSent), "upper")
	f.add(proto == packet.TCP, "tcp")
	f.add(!q.EDNS, "no-edns")
	return label{layer: "dns", name: q.Name, path: packet.TypeName(q.Type), forms: f}
}
