package exposure

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"govah/packet"
)

// conversations are n random ones of all classes, each from a client's port of
// its own, with segments of any size, out of order and sent twice.
func conversations(n int) *tape {
	t := newTape(21)
	pick := func(list ...string) string { return list[t.rand.IntN(len(list))] }
	for i := range n {
		from := len(t.packets)
		t.segment = 40 + t.rand.IntN(1300)
		a := own4
		if t.rand.IntN(3) == 0 {
			a = own6
		}
		name := fmt.Sprintf("n%d.example", t.rand.IntN(60))
		ech, pad := t.rand.IntN(3) == 0, t.rand.IntN(2)*(900+t.rand.IntN(900))
		switch i % 9 {
		case 0:
			t.asks(a, name)
		case 1:
			t.open(a, []uint16{443, 443, 8443, 993}[t.rand.IntN(4)]).says(hello(pick(name, name, name, ""), ech, pad))
		case 2:
			t.quic(a, name, ech, t.rand.IntN(2) == 0, pad)
			continue // datagrams stay as they are
		case 3, 4:
			c := t.open(a, []uint16{80, 80, 8080, 3128}[t.rand.IntN(4)])
			for range 1 + t.rand.IntN(4) {
				head := "Host: " + name + "\r\n" + pick("", "Cookie: a=b\r\n") + pick("", "", "Authorization: Basic YTpi\r\n")
				if t.rand.IntN(3) == 0 {
					body := pick("a=b&password=x", "a=b&c=d", "user=x&passwd=y") + strings.Repeat("&z=1", t.rand.IntN(300))
					c.says(fmt.Sprintf("POST /p HTTP/1.1\r\n%sContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body))
				} else {
					c.says("GET /" + strings.Repeat("x", t.rand.IntN(200)) + " HTTP/1.1\r\n" + head + "\r\n")
				}
				body := strings.Repeat("GET / HTTP/1.1\r\nSet-Cookie: no\r\n", t.rand.IntN(100))
				c.hears(fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", pick("", "Set-Cookie: a=b\r\n"), len(body), body))
			}
		case 5:
			c := t.open(a, []uint16{25, 587}[t.rand.IntN(2)]).talk("220 x ESMTP", ">EHLO x", "250-x", "250-AUTH PLAIN LOGIN", "250 STARTTLS")
			switch t.rand.IntN(3) {
			case 0:
				c.talk(">AUTH PLAIN AHUAcA==", "235 ok")
			case 1:
				c.talk(">STARTTLS", "220 go").says(hello(name, ech, pad))
			default:
				c.talk(">MAIL FROM:<a@x.example>", "250 ok", ">RCPT TO:<b@x.example>", "250 ok", ">DATA", "354 go", ">Subject: x", ">", ">AUTH PLAIN AHUAcA==", ">.", "250 ok", ">QUIT", "221 x")
			}
		case 6:
			c := t.open(a, 143).talk("* OK x", ">a1 CAPABILITY", "* CAPABILITY IMAP4rev1", "a1 OK x")
			if t.rand.IntN(2) == 0 {
				c.talk(">a2 LOGIN u p", "a2 OK x")
			} else {
				c.talk(">a2 STARTTLS", "a2 OK x").says(hello(name, ech, pad))
			}
		case 7:
			c := t.open(a, 110).talk("+OK x")
			if t.rand.IntN(2) == 0 {
				c.talk(">USER u", "+OK", ">PASS p", "+OK")
			} else {
				c.talk(">STLS", "+OK x").says(hello(name, ech, pad))
			}
		case 8:
			if t.rand.IntN(2) == 0 {
				t.open(a, 21).talk("220 x", ">USER u", "331 x", ">PASS p", "230 x")
			} else {
				t.open(a, 23).hears("\xff\xfd\x18Password: ").says("p\r\n")
			}
		}
		// As paths do it: two neighbours swapped, one sent again.
		if k := len(t.packets) - from - 3; k > 2 && i%9 != 0 {
			at := from + 3 + t.rand.IntN(k-1)
			same := func(x, y []byte) bool {
				p, _ := packet.Parse(x)
				q, _ := packet.Parse(y)
				return p.Src == q.Src && len(p.Payload) > 0 && len(q.Payload) > 0
			}
			if same(t.packets[at], t.packets[at+1]) {
				t.packets[at], t.packets[at+1] = t.packets[at+1], t.packets[at]
			} else {
				t.packets = slices.Insert(t.packets, at+1, t.packets[at])
			}
		}
	}
	return t
}

// classes are what is compared, of one conversation.
func classes(c *Counts) map[string]int64 {
	yes := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	return map[string]int64{
		"DNS question": c.DNS.Questions, "TLS hello": c.TLS.Hellos, "TLS name": c.TLS.Named, "TLS ECH": c.TLS.ECH,
		"QUIC name": c.QUIC.Named, "QUIC ECH": c.QUIC.ECH,
		"HTTP request": c.HTTP.Requests, "cookie sent": c.HTTP.CookiesSent, "cookie set": c.HTTP.CookiesSet,
		"HTTP Basic": yes(c.Credentials.HTTPBasic), "form": yes(c.Credentials.HTTPForm),
		"SMTP": c.SMTP.Connections, "IMAP": c.IMAP.Connections, "POP3": c.POP3.Connections, "FTP": c.FTP.Connections, "Telnet": c.Telnet.Connections,
		"STARTTLS":         c.SMTP.StartTLS + c.IMAP.StartTLS + c.POP3.StartTLS,
		"SMTP credentials": yes(c.Credentials.SMTP), "IMAP credentials": yes(c.Credentials.IMAP), "POP3 credentials": yes(c.Credentials.POP3), "FTP credentials": yes(c.Credentials.FTP),
	}
}

// TestAgainstTshark: precision and recall of at least 0.98 in each class
// against the fields of tshark, conversation by conversation.
func TestAgainstTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed: nothing to compare with")
	}
	all := conversations(900)
	path := filepath.Join(t.TempDir(), "conversations.pcapng")
	if err := os.WriteFile(path, all.file(t), 0o600); err != nil {
		t.Fatal(err)
	}
	fields := []string{"tcp.srcport", "tcp.dstport", "udp.srcport", "dns.qry.name", "dns.flags.response", "quic", "tls.handshake.type", "tls.handshake.extensions_server_name", "tls.handshake.extension.type",
		"http.request.method", "http.cookie", "http.set_cookie", "http.authbasic", "urlencoded-form.key",
		"smtp.req.command", "imap.request.command", "pop.request.command", "ftp.request.command", "telnet.cmd"}
	args := []string{"-n", "-r", path, "-T", "fields", "-E", "separator=/t", "-E", "aggregator=|", "-o", "tcp.reassemble_out_of_order:TRUE"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	var complaints bytes.Buffer
	cmd := exec.Command(tshark, args...)
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, complaints.String())
	}
	theirs := map[string]map[string]int64{} // by the client's port
	for line := range strings.Lines(string(out)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(cells) != len(fields) {
			t.Fatalf("tshark wrote %q", line)
		}
		v := map[string][]string{}
		for i, f := range fields {
			if cells[i] != "" {
				v[f] = strings.Split(cells[i], "|")
			}
		}
		port := func(s string) string {
			if n, err := strconv.Atoi(s); err == nil && n > 20000 {
				return s
			}
			return ""
		}
		key := port(strings.Join(v["tcp.srcport"], "") + strings.Join(v["udp.srcport"], ""))
		if key == "" && v["tcp.dstport"] != nil {
			key = port(v["tcp.dstport"][0])
		}
		if key == "" {
			continue
		}
		if theirs[key] == nil {
			theirs[key] = map[string]int64{}
		}
		x := theirs[key]
		once := func(class string, yes bool) {
			if yes {
				x[class] = 1
			}
		}
		has := func(field string, commands ...string) bool {
			return slices.ContainsFunc(v[field], func(s string) bool { return slices.Contains(commands, strings.ToUpper(s)) })
		}
		if slices.Contains(v["dns.flags.response"], "0") || slices.Contains(v["dns.flags.response"], "False") {
			x["DNS question"] += int64(len(v["dns.qry.name"]))
		}
		over := "TLS"
		if v["quic"] != nil {
			over = "QUIC"
		}
		if has("tls.handshake.type", "1") {
			if over == "TLS" {
				x["TLS hello"]++
			}
			x[over+" name"] += int64(len(v["tls.handshake.extensions_server_name"]))
			if has("tls.handshake.extension.type", "65037") {
				x[over+" ECH"]++
			}
			once("STARTTLS", over == "TLS" && x["asked"] > 0)
		}
		x["HTTP request"] += int64(len(v["http.request.method"]))
		x["cookie sent"] += int64(len(v["http.cookie"]))
		x["cookie set"] += int64(len(v["http.set_cookie"]))
		once("HTTP Basic", v["http.authbasic"] != nil)
		once("form", has("urlencoded-form.key", "PASSWORD", "PASSWD"))
		for class, field := range map[string]string{"SMTP": "smtp.req.command", "IMAP": "imap.request.command", "POP3": "pop.request.command", "FTP": "ftp.request.command"} {
			once(class, v[field] != nil)
			once("asked", has(field, "STARTTLS", "STLS", "STAR")) // of SMTP it takes four letters
		}
		once("Telnet", v["telnet.cmd"] != nil)
		once("SMTP credentials", has("smtp.req.command", "AUTH"))
		once("IMAP credentials", has("imap.request.command", "LOGIN", "AUTHENTICATE"))
		once("POP3 credentials", has("pop.request.command", "PASS", "APOP"))
		once("FTP credentials", has("ftp.request.command", "PASS"))
	}
	apart := map[string]*tape{}
	for _, raw := range all.packets {
		p, err := packet.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		key := strconv.Itoa(int(max(p.SrcPort, p.DstPort)))
		if apart[key] == nil {
			apart[key] = &tape{}
		}
		apart[key].packets = append(apart[key].packets, raw)
	}
	type score struct{ both, ours, theirs int64 }
	scores := map[string]*score{}
	for key, one := range apart {
		c, err := Count(t.Context(), bytes.NewReader(one.file(t)), []netip.Addr{own4, own6})
		if err != nil {
			t.Fatal(err)
		}
		for class, n := range classes(c) {
			s := scores[class]
			if s == nil {
				s = &score{}
				scores[class] = s
			}
			m := theirs[key][class]
			s.both, s.ours, s.theirs = s.both+min(n, m), s.ours+n, s.theirs+m
			if n != m {
				t.Logf("port %s: %s: %d, tshark %d", key, class, n, m)
			}
		}
	}
	for class, s := range scores {
		if s.theirs < 20 {
			t.Errorf("%s: tshark has only %d; the comparison says little", class, s.theirs)
			continue
		}
		precision, recall := float64(s.both)/float64(max(s.ours, 1)), float64(s.both)/float64(s.theirs)
		t.Logf("%-17s %5d here, %5d tshark: precision %.3f, recall %.3f", class, s.ours, s.theirs, precision, recall)
		if precision < 0.98 || recall < 0.98 {
			t.Errorf("%s: precision %.3f, recall %.3f", class, precision, recall)
		}
	}
}
