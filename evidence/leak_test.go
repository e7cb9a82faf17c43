package evidence

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"pgregory.net/rapid"
)

// writing is a way to write an identifier, and one to wrap what is written.
type writing struct {
	name  string
	write func(Identifier) []byte // nil where it does not apply
}

func text4(f func(b [4]byte) string) func(Identifier) []byte {
	return func(id Identifier) []byte {
		if id.Kind != KindAddress || !id.Addr.Is4() {
			return nil
		}
		if s := f(id.Addr.As4()); s != "" {
			return []byte(s)
		}
		return nil
	}
}

// number writes an address as one number, but not one that is small.
func number(v uint32, format string, signed bool) string {
	switch {
	case v < 1<<22:
		return ""
	case signed:
		return fmt.Sprintf(format, int32(v))
	}
	return fmt.Sprintf(format, v)
}

func text6(f func(a netip.Addr) string) func(Identifier) []byte {
	return func(id Identifier) []byte {
		if id.Kind != KindAddress || !id.Addr.Is6() {
			return nil
		}
		return []byte(f(id.Addr))
	}
}

func backwards(b []byte) []byte {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}

func macText(f func(m net.HardwareAddr) string) func(Identifier) []byte {
	return func(id Identifier) []byte {
		if id.Kind != KindHardware {
			return nil
		}
		return []byte(f(id.MAC))
	}
}

func nameText(f func(s string) string) func(Identifier) []byte {
	return func(id Identifier) []byte {
		if id.Kind != KindText {
			return nil
		}
		return []byte(f(id.Text))
	}
}

func nibblesOf(a netip.Addr) []string {
	b := a.As16()
	return strings.Split(hex.EncodeToString(b[:]), "")
}

func utf16Of(s string, order binary.AppendByteOrder) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, u)
	}
	return b
}

var writings = []writing{
	{"dotted", text4(func(b [4]byte) string { return netip.AddrFrom4(b).String() })},
	{"dotted with port", text4(func(b [4]byte) string { return netip.AddrFrom4(b).String() + ":50123" })},
	{"dotted, padded", text4(func(b [4]byte) string { return fmt.Sprintf("%03d.%03d.%03d.%03d", b[0], b[1], b[2], b[3]) })},
	{"twelve digits", text4(func(b [4]byte) string { return fmt.Sprintf("%03d%03d%03d%03d", b[0], b[1], b[2], b[3]) })},
	{"dotted octal", text4(func(b [4]byte) string { return fmt.Sprintf("0%o.0%o.0%o.0%o", b[0], b[1], b[2], b[3]) })},
	{"dotted, mixed octal", text4(func(b [4]byte) string { return fmt.Sprintf("%d.0%o.%d.0%o", b[0], b[1], b[2], b[3]) })},
	{"dotted hex", text4(func(b [4]byte) string { return fmt.Sprintf("0x%02X.0x%02x.0x%02x.0x%02x", b[0], b[1], b[2], b[3]) })},
	{"integer", text4(func(b [4]byte) string { return number(binary.BigEndian.Uint32(b[:]), "%d", false) })},
	{"integer, other order", text4(func(b [4]byte) string { return number(binary.LittleEndian.Uint32(b[:]), "%d", false) })},
	{"integer, signed", text4(func(b [4]byte) string { return number(binary.BigEndian.Uint32(b[:]), "%d", true) })},
	{"integer, hex", text4(func(b [4]byte) string { return number(binary.BigEndian.Uint32(b[:]), "0x%x", false) })},
	{"integer, octal", text4(func(b [4]byte) string { return number(binary.BigEndian.Uint32(b[:]), "0%o", false) })},
	{"two parts", text4(func(b [4]byte) string {
		if b[1] == 0 {
			return ""
		}
		return fmt.Sprintf("%d.%d", b[0], binary.BigEndian.Uint32(b[:])&0xffffff)
	})},
	{"three parts", text4(func(b [4]byte) string {
		if b[2] == 0 {
			return ""
		}
		return fmt.Sprintf("%d.%d.%d", b[0], b[1], binary.BigEndian.Uint16(b[2:]))
	})},
	{"in-addr.arpa", text4(func(b [4]byte) string { return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa", b[3], b[2], b[1], b[0]) })},
	{"in-addr.arpa of the network", text4(func(b [4]byte) string { return fmt.Sprintf("%d.%d.%d.in-addr.arpa", b[2], b[1], b[0]) })},
	{"backwards", text4(func(b [4]byte) string { return string(backwards([]byte(netip.AddrFrom4(b).String()))) })},
	{"hyphens", text4(func(b [4]byte) string { return fmt.Sprintf("host-%d-%d-%d-%d.example.net", b[0], b[1], b[2], b[3]) })},
	{"hyphens, reversed", text4(func(b [4]byte) string { return fmt.Sprintf("dyn%d-%d-%d-%d.example.net", b[3], b[2], b[1], b[0]) })},
	{"underscores", text4(func(b [4]byte) string { return fmt.Sprintf("%d_%d_%d_%d", b[0], b[1], b[2], b[3]) })},
	{"JSON numbers", text4(func(b [4]byte) string { return fmt.Sprintf("[%d, %d,%d, %d]", b[0], b[1], b[2], b[3]) })},
	{"FTP PORT", text4(func(b [4]byte) string { return fmt.Sprintf("PORT %d,%d,%d,%d,4,1\r\n", b[0], b[1], b[2], b[3]) })},
	{"its network with /24", text4(func(b [4]byte) string { return fmt.Sprintf("%d.%d.%d.0/24", b[0], b[1], b[2]) })},
	{"its network with x", text4(func(b [4]byte) string { return fmt.Sprintf("%d.%d.%d.xxx", b[0], b[1], b[2]) })},
	{"its neighbour", text4(func(b [4]byte) string { return fmt.Sprintf("%d.%d.%d.%d", b[0], b[1], b[2], b[3]^1) })},
	{"defanged", text4(func(b [4]byte) string { return fmt.Sprintf("%d[.]%d[.]%d[.]%d", b[0], b[1], b[2], b[3]) })},
	{"Persian digits", text4(func(b [4]byte) string {
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return r - '0' + '۰'
			}
			return r
		}, netip.AddrFrom4(b).String())
	})},
	{"IPv4-mapped", text4(func(b [4]byte) string { return "::ffff:" + netip.AddrFrom4(b).String() })},
	{"IPv4-mapped in hex", text4(func(b [4]byte) string { return fmt.Sprintf("::ffff:%x%02x:%x%02x", b[0], b[1], b[2], b[3]) })},
	{"NAT64", text4(func(b [4]byte) string { return "[64:ff9b::" + netip.AddrFrom4(b).String() + "]" })},
	{"6to4", text4(func(b [4]byte) string {
		return fmt.Sprintf("2002:%x:%x::1", binary.BigEndian.Uint16(b[:]), binary.BigEndian.Uint16(b[2:]))
	})},
	{"MD5", text4(func(b [4]byte) string { return digestHex(netip.AddrFrom4(b).String()) })},
	{"binary", text4(func(b [4]byte) string { return string(b[:]) })},
	{"binary, reversed", text4(func(b [4]byte) string { return string(backwards(b[:])) })},
	{"STUN", text4(func(b [4]byte) string { return string([]byte{b[0] ^ 0x21, b[1] ^ 0x12, b[2] ^ 0xa4, b[3] ^ 0x42}) })},

	{"IPv6", text6(netip.Addr.String)},
	{"IPv6, upper case", text6(func(a netip.Addr) string { return strings.ToUpper(a.String()) })},
	{"IPv6, expanded", text6(netip.Addr.StringExpanded)},
	{"IPv6, not compressed", text6(func(a netip.Addr) string {
		b := a.As16()
		var g []string
		for i := 0; i < 16; i += 2 {
			g = append(g, strconv.FormatUint(uint64(binary.BigEndian.Uint16(b[i:])), 16))
		}
		return strings.Join(g, ":")
	})},
	{"IPv6, bracketed", text6(func(a netip.Addr) string { return "http://[" + a.String() + "]:8080/" })},
	{"IPv6, a zone", text6(func(a netip.Addr) string { return a.String() + "%eth0" })},
	{"IPv6, dotted end", text6(func(a netip.Addr) string {
		b := a.As16()
		return netip.PrefixFrom(a, 96).Masked().Addr().StringExpanded()[:30] + netip.AddrFrom4([4]byte(b[12:])).String()
	})},
	{"IPv6, its /64", text6(func(a netip.Addr) string { return netip.PrefixFrom(a, 64).Masked().String() })},
	{"IPv6, its /48", text6(func(a netip.Addr) string { return netip.PrefixFrom(a, 48).Masked().String() })},
	{"IPv6, interface identifier", text6(func(a netip.Addr) string {
		b := a.As16()
		copy(b[:], []byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0})
		return netip.AddrFrom16(b).String()
	})},
	{"ip6.arpa", text6(func(a netip.Addr) string { return strings.Join(reversedStrings(nibblesOf(a)), ".") + ".ip6.arpa" })},
	{"nibbles", text6(func(a netip.Addr) string { return strings.Join(nibblesOf(a), ".") })},
	{"IPv6 with hyphens", text6(func(a netip.Addr) string { return strings.ReplaceAll(a.String(), ":", "-") + ".ipv6-literal.net" })},
	{"IPv6 backwards", text6(func(a netip.Addr) string { return string(backwards([]byte(a.String()))) })},
	{"IPv6 binary", text6(func(a netip.Addr) string { return string(a.AsSlice()) })},
	{"IPv6 binary, reversed", text6(func(a netip.Addr) string { return string(backwards(a.AsSlice())) })},
	{"IPv6 as /proc has it", text6(func(a netip.Addr) string {
		b := a.As16()
		s := ""
		for i := 0; i < 16; i += 4 {
			s += fmt.Sprintf("%08X", binary.LittleEndian.Uint32(b[i:]))
		}
		return s
	})},

	{"MAC", macText(net.HardwareAddr.String)},
	{"MAC, hyphens", macText(func(m net.HardwareAddr) string { return strings.ToUpper(strings.ReplaceAll(m.String(), ":", "-")) })},
	{"MAC, Cisco's", macText(func(m net.HardwareAddr) string {
		return fmt.Sprintf("%x.%x.%x", []byte(m[:2]), []byte(m[2:4]), []byte(m[4:]))
	})},
	{"MAC, together", macText(func(m net.HardwareAddr) string { return hex.EncodeToString(m) })},
	{"MAC, no zeroes", macText(func(m net.HardwareAddr) string {
		return fmt.Sprintf("%x:%x:%x:%x:%x:%x", m[0], m[1], m[2], m[3], m[4], m[5])
	})},
	{"MAC, binary", macText(func(m net.HardwareAddr) string { return string(m) })},
	{"MAC, reversed", macText(func(m net.HardwareAddr) string { return string(backwards(m)) })},
	{"MAC in an address", macText(func(m net.HardwareAddr) string {
		return fmt.Sprintf("fe80::%x:%xff:fe%02x:%x", uint16(m[0]^2)<<8|uint16(m[1]), m[2], m[3], uint16(m[4])<<8|uint16(m[5]))
	})},

	{"name", nameText(func(s string) string { return s })},
	{"name, upper case", nameText(strings.ToUpper)},
	{"name, lower case", nameText(strings.ToLower)},
	{"name, in a URL", nameText(func(s string) string { return "?n=" + strings.ReplaceAll(s, " ", "+") })},
	{"name, in a host name", nameText(func(s string) string { return strings.ReplaceAll(strings.ToLower(s), " ", "-") + ".local" })},
	{"name, backwards", nameText(reversed)},
	{"name, bytes reversed", nameText(func(s string) string { return string(backwards([]byte(s))) })},
	{"name, UTF-16LE", nameText(func(s string) string { return string(utf16Of(s, binary.LittleEndian)) })},
	{"name, UTF-16BE", nameText(func(s string) string { return string(utf16Of(s, binary.BigEndian)) })},
	{"name, JSON", nameText(func(s string) string {
		out := ""
		for _, u := range utf16.Encode([]rune(s)) {
			out += fmt.Sprintf("\\u%04x", u)
		}
		return out
	})},
}

func digestHex(s string) string {
	sp := spellings{}
	sp.digests(s, nil)
	return hex.EncodeToString(sp.binary[0].bytes)
}

func reversedStrings(s []string) []string {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

// wrapping is an encoding of whatever bytes.
type wrapping struct {
	name string
	wrap func(t *rapid.T, b []byte) []byte
}

func each(b []byte, format string) []byte {
	var out []byte
	for _, c := range b {
		out = fmt.Appendf(out, format, c)
	}
	return out
}

func zipped(w interface {
	Write([]byte) (int, error)
	Close() error
}, buf *bytes.Buffer, b []byte) []byte {
	w.Write([]byte("some words before it, so that there is something to compress, some words "))
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

var wrappings = []wrapping{
	{"as it is", func(_ *rapid.T, b []byte) []byte { return b }},
	{"hex", func(_ *rapid.T, b []byte) []byte { return []byte(hex.EncodeToString(b)) }},
	{"HEX", func(_ *rapid.T, b []byte) []byte { return fmt.Appendf(nil, "%X", b) }},
	{"hex with spaces", func(_ *rapid.T, b []byte) []byte { return fmt.Appendf(nil, "% x", b) }},
	{"hex with colons", func(_ *rapid.T, b []byte) []byte { return each(b, ":%02X") }},
	{"hex of C", func(_ *rapid.T, b []byte) []byte { return each(b, `\x%02x`) }},
	{"hex of an array", func(_ *rapid.T, b []byte) []byte { return each(b, "0x%02x, ") }},
	{"base64", func(t *rapid.T, b []byte) []byte {
		pre := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "before")
		post := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "after")
		enc := []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding}
		return []byte(enc[rapid.IntRange(0, 3).Draw(t, "alphabet")].EncodeToString(slices.Concat(pre, []byte(" "), b, []byte(" "), post)))
	}},
	{"base64 in lines", func(_ *rapid.T, b []byte) []byte {
		s := base64.StdEncoding.EncodeToString(slices.Concat([]byte("some 15 bytes.."), b))
		var out []byte
		for len(s) > 20 {
			out, s = append(append(out, s[:20]...), "\r\n"...), s[20:]
		}
		return append(out, s...)
	}},
	{"percent", func(_ *rapid.T, b []byte) []byte { return each(b, "%%%02X") }},
	{"quoted-printable", func(_ *rapid.T, b []byte) []byte { return each(b, "=%02X") }},
	{"octal", func(_ *rapid.T, b []byte) []byte { return each(b, `\%03o`) }},
	{"DNS's decimal", func(_ *rapid.T, b []byte) []byte { return each(b, `\%03d`) }},
	{"gzip", func(_ *rapid.T, b []byte) []byte {
		var buf bytes.Buffer
		return zipped(gzip.NewWriter(&buf), &buf, b)
	}},
	{"zlib", func(_ *rapid.T, b []byte) []byte {
		var buf bytes.Buffer
		return zipped(zlib.NewWriter(&buf), &buf, b)
	}},
	{"deflate in HTTP", func(_ *rapid.T, b []byte) []byte {
		var buf bytes.Buffer
		w, _ := flate.NewWriter(&buf, 9)
		return append([]byte("HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n"), zipped(w, &buf, b)...)
	}},
	{"chunks of HTTP", func(_ *rapid.T, b []byte) []byte {
		out := []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for i := range b {
			out = fmt.Appendf(out, "1\r\n%s\r\n", b[i:i+1])
		}
		return append(out, "0\r\n\r\n"...)
	}},
	{"gzip in base64 in JSON", func(_ *rapid.T, b []byte) []byte {
		var buf bytes.Buffer
		s := base64.StdEncoding.EncodeToString(zipped(gzip.NewWriter(&buf), &buf, b))
		return []byte(`{"data":"` + strings.ReplaceAll(s, "/", `\/`) + `"}`)
	}},
}

// textWrappings are of what is ASCII.
var textWrappings = []wrapping{
	{"UTF-16LE", func(_ *rapid.T, b []byte) []byte { return utf16Of(string(b), binary.LittleEndian) }},
	{"UTF-16BE", func(_ *rapid.T, b []byte) []byte { return utf16Of(string(b), binary.BigEndian) }},
	{"HTML decimal", func(_ *rapid.T, b []byte) []byte { return each(b, "&#%d;") }},
	{"HTML hex", func(_ *rapid.T, b []byte) []byte { return each(b, "&#x%x;") }},
	{"JSON", func(_ *rapid.T, b []byte) []byte { return each(b, `\u%04X`) }},
	{"percent, dots", func(_ *rapid.T, b []byte) []byte {
		return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("."), []byte("%2E")), []byte(":"), []byte("%3a"))
	}},
	{"JSON string", func(_ *rapid.T, b []byte) []byte {
		out, _ := json.Marshal(string(b))
		return out
	}},
	{"full width", func(_ *rapid.T, b []byte) []byte {
		return []byte(strings.Map(func(r rune) rune {
			if r > ' ' && r < 127 {
				return r - '!' + 0xff01
			}
			return r
		}, string(b)))
	}},
}

func drawIdentifier(t *rapid.T) Identifier {
	var id Identifier
	switch rapid.SampledFrom([]IdentifierKind{KindAddress, KindAddress, KindHardware, KindText}).Draw(t, "kind") {
	case KindAddress:
		// At random, and as people have them: private, with small numbers.
		a := rapid.SampledFrom([]string{"10.3.4.5", "192.168.1.23", "172.16.0.9", "100.64.201.7", "198.51.100.200", "1.0.0.2",
			"2001:db8:1:2:3c4d:15ff:fe26:3748", "2a0e:1002::5", "fd12:3456:789a:1::1", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1"}).Draw(t, "address")
		addr := netip.MustParseAddr(a)
		if rapid.Bool().Draw(t, "random") {
			if addr.Is4() {
				b := addr.As4()
				copy(b[1:], rapid.SliceOfN(rapid.Byte(), 3, 3).Draw(t, "rest"))
				addr = netip.AddrFrom4(b)
			} else {
				b := addr.As16()
				copy(b[4:], rapid.SliceOfN(rapid.ByteRange(1, 255), 12, 12).Draw(t, "rest"))
				addr = netip.AddrFrom16(b)
			}
		}
		id, _ = AddressIdentifier(addr, "test")
	case KindHardware:
		id = Identifier{Kind: KindHardware, MAC: rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac")}
		id.MAC[0] |= 0x10
	default:
		id, _ = TextIdentifier(rapid.SampledFrom([]string{"Cafe Naderi 5G", "amir-laptop", "ali", "Ubiquiti 2.4", "خانه\u200cی من", "Каналъ", "Zoë", "📶 net", "Shahrake Gharb"}).Draw(t, "name"), "test")
	}
	return id
}

// TestScannerFinds: whatever way an identifier is written in, and that is
// wrapped in, in whatever it stands, it is found, and where it stands.
func TestScannerFinds(t *testing.T) {
	combinations := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		id := drawIdentifier(t)
		s := NewScanner([]Identifier{id})
		before := rapid.SampledFrom([]string{"", "x ", `{"value":"`, "GET /", "\x00\x01\xff", "\xc3\xa9<b>", "e: "}).Draw(t, "around")
		for _, w := range writings {
			b := w.write(id)
			if b == nil {
				continue
			}
			if w.name == "IPv6, interface identifier" && !identifies(b6(id)) {
				continue
			}
			list := wrappings
			if ascii(b) {
				list = slices.Concat(wrappings, textWrappings)
			}
			for _, wrap := range list {
				if fixed[wrap.name] && !ascii(b) {
					continue
				}
				in := wrap.wrap(t, b)
				doc := &Document{Name: "d", Data: slices.Concat([]byte(before), in, []byte("\"}\n"))}
				combinations[w.name+" / "+wrap.name] = true
				found := false
				for _, l := range s.Scan(doc) {
					if l.Identifier < 0 {
						continue
					}
					if l.From < 0 || l.To > len(doc.Data) || l.From >= l.To {
						t.Fatalf("%s / %s: found at [%d, %d) of %d", w.name, wrap.name, l.From, l.To, len(doc.Data))
					}
					// Where it is found is where it stands, or near.
					if l.To > len(before) && l.From < len(before)+len(in) {
						found = true
					}
				}
				if !found {
					t.Fatalf("%s / %s of %+v is not found in %q", w.name, wrap.name, id, doc.Data)
				}
			}
		}
	})
	if len(combinations) < 600 {
		t.Errorf("only %d places and encodings were tried", len(combinations))
	}
	t.Logf("%d ways of writing, wrapped: %d", len(writings), len(combinations))
}

// fixed are wrappings in which bytes that are no text mean something else.
var fixed = map[string]bool{}

func b6(id Identifier) []byte {
	b := id.Addr.As16()
	return b[8:]
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
