package receipt

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"govah/measure"
)

// fields are what of an observation a receipt is about, by their names in the
// file: version 1, which does not change when observations get more fields.
// What is not here is the reader's: times since the start of something, roles,
// stages, networks of addresses. A test compares it with the document.
var fields = tree{
	"id": nil, "step": nil, "after": nil, "remote": nil, "sni": nil, "hello": nil, "host": nil, "url": nil,
	"took_us": nil, "sent": nil, "received": nil, "failure": nil, "detail": nil,
	"dns": {"name": nil, "type": nil, "transport": nil, "resolver": nil,
		"replies": {"rcode": nil, "aa": nil, "ad": nil, "answers": {"type": nil, "value": nil, "ttl_s": nil}}},
	"tcp": {"rtt_us": nil, "retransmits": nil},
	"tls": {"version": nil, "cipher": nil, "group": nil, "alpn": nil, "alert": nil, "server_bytes": nil, "chain": nil,
		"subject": nil, "issuer": nil, "names": nil, "not_before_s": nil, "not_after_s": nil, "spki": nil, "key": nil,
		"serial": nil, "aia": nil, "public": nil, "scts": {"embedded": nil, "beside": nil}},
	"http": {"method": nil, "proto": nil, "status": nil, "location": nil, "title": nil, "authenticated": nil,
		"body_bytes": nil, "body_truncated": nil, "body_sha256": nil, "simhash": nil, "h3": nil, "first_byte_us": nil,
		"headers": {"name": nil, "value": nil}},
	"mail": {"protocol": nil, "implicit": nil, "truncated": nil, "away": nil, "greeting": nil, "before": nil, "after": nil,
		"starttls": nil, "early_bytes": nil, "early": nil, "lines": {"sent": nil, "tls": nil, "text": nil}},
}

// tree is fields of an object, nil for a value.
type tree map[string]tree

// canonical is an observation as it is hashed: its fields, without those that
// are empty, 0 or false, as JSON in the form of RFC 8785.
func canonical(o measure.Observation) []byte {
	text, err := json.Marshal(o)
	if err != nil { // strings and integers always encode
		panic(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		panic(err)
	}
	var out bytes.Buffer
	encode(&out, only(v, fields))
	return out.Bytes()
}

// only keeps what of v is in t and says something; nil if nothing is.
func only(v any, t tree) any {
	switch v := v.(type) {
	case map[string]any:
		kept := map[string]any{}
		for name, sub := range t {
			if got := only(v[name], sub); got != nil {
				kept[name] = got
			}
		}
		if len(kept) > 0 {
			return kept
		}
	case []any:
		// An entry that says nothing still counts.
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = only(e, t)
		}
		if len(list) > 0 {
			return list
		}
	case string:
		if v != "" {
			return v
		}
	case json.Number:
		if v != "0" {
			return v
		}
	case bool:
		if v {
			return v
		}
	}
	return nil
}

// encode writes RFC 8785's form: sorted names (all ASCII here), no spaces,
// integers as they are, and in strings only what must be escaped.
func encode(out *bytes.Buffer, v any) {
	switch v := v.(type) {
	case map[string]any:
		out.WriteByte('{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				out.WriteByte(',')
			}
			encode(out, name)
			out.WriteByte(':')
			encode(out, v[name])
		}
		out.WriteByte('}')
	case []any:
		out.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				out.WriteByte(',')
			}
			encode(out, e)
		}
		out.WriteByte(']')
	case string:
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			panic(err)
		}
		// The encoder escapes two more, for JavaScript.
		text := strings.TrimSuffix(b.String(), "\n")
		for i := 0; i < len(text); {
			switch {
			case strings.HasPrefix(text[i:], `\u2028`):
				out.WriteString("\u2028")
				i += 6
			case strings.HasPrefix(text[i:], `\u2029`):
				out.WriteString("\u2029")
				i += 6
			case text[i] == '\\':
				out.WriteString(text[i : i+2])
				i += 2
			default:
				out.WriteByte(text[i])
				i++
			}
		}
	case json.Number:
		out.WriteString(v.String())
	case bool:
		out.WriteString("true") // others are left out
	default:
		out.WriteString("null")
	}
}
