package evidence

import (
	"bytes"
	"net/netip"
	"slices"
)

// claimed are the header fields in which content of others names the client:
// its address, its number, or an id that the other side's log has beside its
// address.
var claimed = set([]string{
	"x-forwarded-for", "x-forwarded", "forwarded", "forwarded-for", "x-real-ip", "x-client-ip", "client-ip", "true-client-ip",
	"cf-connecting-ip", "x-cluster-client-ip", "fastly-client-ip", "x-azure-clientip", "x-appengine-user-ip", "x-user-ip",
	"x-remote-addr", "x-remote-ip", "remote-addr", "x-originating-ip", "x-client-address", "x-source-ip",
	"x-msisdn", "x-up-calling-line-id", "x-up-subno", "x-nokia-msisdn", "x-wap-msisdn", "x-network-info", "msisdn", "x-imsi", "x-imei",
	"x-acr", "x-uidh", "x-vf-acr", "x-subscriber-id", "x-account-id",
	"set-cookie", "cookie", "authorization", "proxy-authorization",
	"cf-ray", "x-request-id", "x-correlation-id", "x-trace-id", "traceparent", "x-amz-cf-id", "x-amz-request-id", "x-amz-id-2",
	"x-amzn-trace-id", "x-amzn-requestid", "x-fastly-request-id", "x-vercel-id", "x-nf-request-id", "x-github-request-id", "x-azure-ref",
	"x-msedge-ref", "x-ms-request-id", "x-served-by-request",
})

// dated are the header fields that tell when content was given out, to the
// second or by how long ago (RFC 9110, 6.6.1; RFC 9111, 5), and cookies, whose
// end is counted from then.
var dated = set([]string{"date", "expires", "last-modified", "age", "set-cookie", "x-timer", "warning"})

// receiptTime is what stands before the time in a receipt
// (docs/formats/helper-v1.md).
var receiptTime = []byte("govah.invalid/receipt/v1\ntime ")

func set(names []string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

const maxHeaderName = 32

// scanClaims calls visit for the value of each header of these names in b: a line of
// HTTP or mail, or a name and a value of our own JSON.
func scanClaims(b []byte, names map[string]bool, visit func(name string, from, to int)) {
	var lower [maxHeaderName]byte
	known := func(name []byte) (string, bool) {
		if len(name) == 0 || len(name) > maxHeaderName {
			return "", false
		}
		for i, c := range name {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			lower[i] = c
		}
		n := string(lower[:len(name)])
		return n, names[n]
	}
	for at := 0; at < len(b); {
		k := bytes.IndexByte(b[at:], ':')
		if k < 0 {
			return
		}
		colon := at + k
		at = colon + 1
		// A line: the name goes back to its beginning.
		start := colon
		for start > 0 && colon-start <= maxHeaderName && (letter(b[start-1]) || b[start-1] == '-') {
			start--
		}
		if start == 0 || b[start-1] == '\n' {
			if name, ok := known(b[start:colon]); ok {
				from := colon + 1
				for from < len(b) && b[from] == ' ' {
					from++
				}
				to := from
				for to < len(b) && b[to] != '\r' && b[to] != '\n' && b[to] != 0 {
					to++
				}
				visit(name, from, to)
			}
			continue
		}
		// "name":"…","value":"…"
		const head, mid = `"name":"`, `","value":"`
		if colon < 6 || !bytes.HasPrefix(b[colon-6:], []byte(head)) {
			continue
		}
		from := colon + 2
		end := bytes.IndexByte(b[from:min(len(b), from+maxHeaderName+1)], '"')
		if end < 0 || !bytes.HasPrefix(b[from+end:], []byte(mid)) {
			continue
		}
		if name, ok := known(b[from : from+end]); ok {
			v := from + end + len(mid)
			to := v
			for to < len(b) && b[to] != '"' {
				if b[to] == '\\' {
					to++
				}
				to++
			}
			visit(name, v, min(to, len(b)))
		}
	}
}

// labels are what stands before an address of which a page says that it is
// the reader's.
var labels = func() *matcher {
	var list []pattern
	for _, l := range []string{
		"your ip", "your address", "your public ip", "client", "remote_addr", "remoteip", "user_ip", "userip", "visitor", "source ip",
		"sourceip", "srcip", "src_ip", "src=", "?ip=", "&ip=", ";ip=", "from ip", "ip address", "my ip", "myip", "caller",
		"آی پی", "آی\u200cپی", "آیپی", "نشانی", "آدرس", "کاربر", "ваш ip", "ваш адрес", "您的ip", "您的 ip", "عنوان", "votre ip", "votre adresse",
	} {
		list = append(list, pattern{bytes: []byte(l)})
	}
	return newMatcher(list, folded)
}()

// labelNear is how far before the address a label may end, bytes.
const labelNear = 24

// labelled gives the places where a label ends, in order.
func labelled(b []byte) (ends []int) {
	labels.scan(b, func(at int, p *pattern) { ends = append(ends, at+len(p.bytes)) })
	slices.Sort(ends)
	return ends
}

// label says whether one ends before b[at:], in the same sentence. ends loses
// those that are too far back: addresses come in order.
func label(b []byte, ends *[]int, at int) bool {
	for len(*ends) > 0 && (*ends)[0] < at-labelNear {
		*ends = (*ends)[1:]
	}
	for _, e := range *ends {
		if e > at {
			return false
		}
		if bytes.IndexByte(b[e:at], '\n') < 0 && !bytes.Contains(b[e:at], []byte(". ")) {
			return true
		}
	}
	return false
}

// learn takes an address that content of others gives as the client's.
func (s *Scanner) learn(a netip.Addr, from string) {
	id, ok := AddressIdentifier(a, from)
	if !ok || s.known[id.Addr] {
		return
	}
	for _, have := range append(s.ids, s.Learnt...) {
		if have.Kind == KindAddress && have.Addr == id.Addr {
			return
		}
	}
	s.Learnt = append(s.Learnt, id)
}
