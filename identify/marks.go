package identify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"govah/measure"
)

// The marks of packets that a device makes itself, in the order of reports.
// They show only where packets could be captured, and are no part of a
// behaviour's id.
var marks = []string{"ip-ttl", "ip-id", "df", "flags", "packets", "window", "seq", "ack", "payload", "spacing"}

// Values of marks that are rules.
const (
	asExpected = "expected" // the number that a stack would have put there
	isZero     = "zero"
	isCopied   = "copied" // from our packet
	isRising   = "rising" // from one packet to the next
	isVaried   = "varied" // by no rule that is told
	isCounting = "counting"
	isNothing  = "none"
)

const (
	// jitter is how many hops the ways back of one device's packets may differ.
	jitter = 4
	// fewPackets is how many packets of one injection are described one by one.
	fewPackets = 8
	// nearID is how far a copied IP ID or a counter may be off.
	nearID = 1024
)

// injection is what a device sent in answer to one sending of a trigger.
type injection struct {
	id      string           // of the observation
	v6      bool             // which has no IP ID
	sent    []measure.Packet // the segments of the trigger
	next    int64            // what followed of the server's own sequence
	packets []measure.Packet
}

// injections finds the device's packets in a test that was reacted to and
// whose control was not: what came after the trigger and is not as the server
// sends, by the TTL and the IP ID of its packets in the control and of its
// SYN/ACK in the same connection.
func injections(t, c *measure.Observation) (out []injection) {
	if len(t.Packets) == 0 || payloadOf(t) == Naming && (!nowhere(t) || t.DNS.Transport != "udp") {
		return nil
	}
	v6 := t.Family == measure.IPv6
	var s server
	for i := range c.Packets[:min(len(c.Packets), measure.MaxPackets)] {
		if p := &c.Packets[i]; valid(p) && !p.Sent && !nowhere(t) {
			s.add(p)
		}
	}
	var now *injection
	end := int64(-1) // of what was sent
	for _, p := range t.Packets[:min(len(t.Packets), measure.MaxPackets)] {
		if !valid(&p) {
			continue
		}
		switch {
		case p.Sent && p.Bytes > 0:
			if again := p.Flags == "" || end >= 0 && ahead(p.Seq, end) < 0; now == nil || again && len(now.packets) > 0 {
				out = append(out, injection{id: t.ID, v6: v6, next: -1})
				now = &out[len(out)-1]
			}
			now.sent = append(now.sent, p)
			end = p.Seq + int64(p.Bytes)
		case p.Sent:
		case strings.Contains(p.Flags, "S"):
			s.add(&p)
		case now == nil:
		case nowhere(t):
			now.packets = append(now.packets, p)
		case len(s.ttl) == 0: // nothing to compare with
		case s.sends(&p, v6):
			if p.Bytes > 0 {
				now.next = p.Seq + int64(p.Bytes)
			}
		default:
			now.packets = append(now.packets, p)
		}
	}
	return slices.DeleteFunc(out, func(i injection) bool { return len(i.packets) == 0 })
}

// valid says whether a packet, perhaps of a file of others, can be one.
func valid(p *measure.Packet) bool {
	within := func(v, most int64) bool { return v >= 0 && v <= most }
	if !within(int64(p.TTL), 255) || !within(int64(p.IPID), 1<<16-1) || !within(int64(p.Window), 1<<16-1) ||
		!within(p.Seq, 1<<32-1) || !within(p.Ack, 1<<32-1) || !within(int64(p.Bytes), 1<<16) {
		return false
	}
	hex := func(s string, most int) bool {
		return len(s) <= most && strings.Trim(s, "0123456789abcdef") == ""
	}
	return len(p.Flags) <= 6 && strings.Trim(p.Flags, "FSRPAU") == "" && hex(p.Data, 64) && hex(p.SHA256, 64)
}

// ahead is how far a sequence number is behind another one, less than 0 if it
// is before it.
func ahead(seq, of int64) int64 { return int64(int32(uint32(seq) - uint32(of))) }

// server is how a server sends.
type server struct {
	ttl     map[int]bool
	zero    bool // it sends packets with the IP ID 0
	numbers bool // it sends others
}

func (s *server) add(p *measure.Packet) {
	if s.ttl == nil {
		s.ttl = map[int]bool{}
	}
	s.ttl[p.TTL] = true
	if p.IPID == 0 {
		s.zero = true
	} else {
		s.numbers = true
	}
}

// sends says that a packet is as the server's are.
func (s *server) sends(p *measure.Packet, v6 bool) bool {
	return s.ttl[p.TTL] && (v6 || p.IPID == 0 && s.zero || p.IPID != 0 && s.numbers)
}

// mark concludes the marks from all injections.
func (e *Evidence) mark() {
	if len(e.injected) == 0 {
		return
	}
	set := func(name, value string) {
		if value != "" {
			e.Writes[name] = value
		}
	}
	list := e.injected
	count := func(i *injection) string { return fmt.Sprint(len(i.packets)) }
	packets := most(list, count)
	// Of these nothing was lost on the way.
	whole := slices.DeleteFunc(slices.Clone(list), func(i injection) bool { return count(&i) != packets })
	set("ip-ttl", ttlMark(list))
	if !list[0].v6 {
		set("ip-id", idMark(list, whole))
		set("df", same(list, func(_ *injection, p *measure.Packet) string { return map[bool]string{true: "yes", false: "no"}[p.DF] }))
	}
	set("packets", packets)
	if list[0].packets[0].Flags == "" {
		set("spacing", spacingMark(list))
		return
	}
	set("flags", most(whole, func(i *injection) string {
		return each(i, func(p *measure.Packet) string { return p.Flags })
	}))
	set("window", windowMark(list))
	set("seq", ruled(whole, (*injection).sequence))
	set("ack", ackMark(whole))
	set("payload", payloadMark(whole))
	set("spacing", spacingMark(list))
}

// captured says whether packets of the device were seen.
func (e *Evidence) captured() bool {
	return slices.ContainsFunc(marks, func(name string) bool { return e.Writes[name] != "" })
}

// sentBy are the observations in which they were.
func (e *Evidence) sentBy() (ids []string) {
	for _, i := range e.injected {
		if !slices.Contains(ids, i.id) {
			ids = append(ids, i.id)
		}
	}
	return ids
}

// each joins what is said of the packets of one injection.
func each(i *injection, of func(*measure.Packet) string) string {
	var list []string
	for n := range i.packets[:min(len(i.packets), fewPackets)] {
		list = append(list, of(&i.packets[n]))
	}
	return strings.Join(list, ",")
}

// once is each, or what is said of all packets alike.
func once(i *injection, of func(*measure.Packet) string) string {
	list := strings.Split(each(i, of), ",")
	if len(slices.Compact(slices.Clone(list))) == 1 {
		return list[0]
	}
	return strings.Join(list, ",")
}

// most is what is said of most injections: packets are lost on the way, so
// that of two that are as frequent the longer one counts.
func most(list []injection, of func(*injection) string) string {
	count := map[string]int{}
	for n := range list {
		count[of(&list[n])]++
	}
	best := ""
	for v, n := range count {
		if best == "" || cmp.Or(cmp.Compare(n, count[best]), cmp.Compare(len(v), len(best)), cmp.Compare(v, best)) > 0 {
			best = v
		}
	}
	return best
}

// ruled is most, or varied if no two injections agree.
func ruled(list []injection, of func(*injection) string) string {
	all := map[string]bool{}
	for n := range list {
		all[of(&list[n])] = true
	}
	if len(all) == len(list) && len(list) > 1 {
		return isVaried
	}
	return most(list, of)
}

// same is what is said of every packet, or varied.
func same(list []injection, of func(*injection, *measure.Packet) string) string {
	first := of(&list[0], &list[0].packets[0])
	for n := range list {
		for k := range list[n].packets {
			if of(&list[n], &list[n].packets[k]) != first {
				return isVaried
			}
		}
	}
	return first
}

// values are a number of all packets.
func values(list []injection, of func(*measure.Packet) int) (out []int) {
	for n := range list {
		for k := range list[n].packets {
			out = append(out, of(&list[n].packets[k]))
		}
	}
	return out
}

// rises says whether a number grows from packet to packet in every injection
// of several, of which there is one.
func rises(list []injection, of func(*measure.Packet) int) bool {
	any := false
	for n := range list {
		p := list[n].packets
		for k := 1; k < len(p); k++ {
			if of(&p[k]) <= of(&p[k-1]) {
				return false
			}
			any = true
		}
	}
	return any
}

// ttlMark is the TTL that packets set out with: it is one of few, and they met
// fewer routers than those lie apart.
func ttlMark(list []injection) string {
	ttl := func(p *measure.Packet) int { return p.TTL }
	all := values(list, ttl)
	low, high := slices.Min(all), slices.Max(all)
	switch {
	case rises(list, ttl):
		return isRising
	case high-low > jitter:
		return isVaried
	}
	for _, initial := range []int{32, 64, 128} {
		if high <= initial {
			return fmt.Sprint(initial)
		}
	}
	return "255"
}

// idMark is the rule that IP IDs follow. One number alone is none: it may be
// random.
func idMark(list, whole []injection) string {
	id := func(p *measure.Packet) int { return p.IPID }
	all := values(list, id)
	ours := func(i *injection, v int) bool {
		return slices.ContainsFunc(i.sent, func(p measure.Packet) bool { return p.IPID == v })
	}
	zero, copied, known := true, true, false
	for n := range list {
		for k := range list[n].packets {
			v := list[n].packets[k].IPID
			zero = zero && v == 0
			copied = copied && ours(&list[n], v)
		}
		known = known || slices.ContainsFunc(list[n].sent, func(p measure.Packet) bool { return p.IPID != 0 })
	}
	switch {
	case zero && copied && !known:
		return "" // ours are 0 as well
	case zero:
		return isZero
	case copied:
		return isCopied
	case len(list) > 1 && slices.Min(all) == slices.Max(all):
		return fmt.Sprintf("0x%04x", all[0])
	}
	if len(whole) > 1 {
		// Beside ours: the same steps each time.
		offsets := func(i *injection) string {
			last := i.sent[len(i.sent)-1].IPID
			return each(i, func(p *measure.Packet) string {
				if d := int(int16(p.IPID - last)); last != 0 && d != 0 && max(d, -d) <= nearID {
					return fmt.Sprintf("ours%+d", d)
				}
				return "-"
			})
		}
		if first := offsets(&whole[0]); !strings.Contains(","+first, ",-") && !slices.ContainsFunc(whole, func(i injection) bool { return offsets(&i) != first }) {
			return first
		}
	}
	if len(all) == 1 {
		return ""
	}
	step, even, near := int(uint16(all[1]-all[0])), true, true
	for n := 1; n < len(all); n++ {
		d := int(uint16(all[n] - all[n-1]))
		even, near = even && d == step, near && d > 0 && d <= nearID
	}
	switch {
	case even && near:
		return fmt.Sprintf("%+d", step)
	case near && len(all) > 2:
		return isCounting
	case len(list) == 1 && step == 0:
		return "" // one number, in one answer
	}
	return isVaried
}

// windowMark is the rule that windows follow.
func windowMark(list []injection) string {
	window := func(p *measure.Packet) int { return p.Window }
	all := values(list, window)
	low, high := slices.Min(all), slices.Max(all)
	if high == 0 {
		return isZero
	}
	const usual = 65535 // which is no copy
	copied, full := true, low == usual
	for n := range list {
		for k := range list[n].packets {
			w := list[n].packets[k].Window
			copied = copied && w != usual && slices.ContainsFunc(list[n].sent, func(p measure.Packet) bool { return p.Window == w })
		}
		full = full && slices.ContainsFunc(list[n].sent, func(p measure.Packet) bool { return p.Window == usual })
	}
	switch {
	case full:
		return ""
	case copied:
		return isCopied
	case rises(list, window):
		return isRising
	case low == high && len(list) > 1:
		return fmt.Sprint(low)
	case low == high:
		return "" // one number may be any
	}
	return isVaried
}

// off names how far a number is from another one.
func off(from string, d int64) string {
	if d == 0 {
		return from
	}
	if from == asExpected {
		from = ""
	}
	return fmt.Sprintf("%s%+d", from, d)
}

// sequence says of an injection which sequence numbers its packets have,
// beside those that follow what we had acknowledged, or the server's own.
func (i *injection) sequence() string {
	said := int64(0) // by the device
	return once(i, func(p *measure.Packet) string {
		expects := func(base int64) bool { return ahead(p.Seq, base+said) == 0 }
		last := i.sent[len(i.sent)-1].Ack
		value := off(asExpected, ahead(p.Seq, last+said))
		switch {
		case slices.ContainsFunc(i.sent, func(s measure.Packet) bool { return expects(s.Ack) }) || i.next >= 0 && expects(i.next):
			value = asExpected
		case p.Seq == 0:
			value = isZero
		}
		if !strings.Contains(p.Flags, "R") {
			said += int64(p.Bytes)
		}
		return value
	})
}

// ackMark is the rule that acknowledgements follow: all of the trigger, or
// always as many bytes of it. Resets without the flag mostly have none.
func ackMark(list []injection) string {
	acknowledges := func(p *measure.Packet) bool { return p.Ack != 0 || strings.Contains(p.Flags, "A") }
	if !slices.ContainsFunc(list, func(i injection) bool {
		return slices.ContainsFunc(i.packets, func(p measure.Packet) bool { return acknowledges(&p) })
	}) {
		return ""
	}
	of := func(begin bool) func(*injection) string {
		return func(i *injection) string {
			return once(i, func(p *measure.Packet) string {
				last := i.sent[len(i.sent)-1]
				switch {
				case slices.ContainsFunc(i.sent, func(s measure.Packet) bool { return ahead(p.Ack, s.Seq+int64(s.Bytes)) == 0 }):
					return asExpected
				case p.Ack == 0 && !strings.Contains(p.Flags, "A"):
					return isNothing
				case p.Ack == 0:
					return isZero
				case begin:
					return off("seq", ahead(p.Ack, last.Seq))
				}
				return off(asExpected, ahead(p.Ack, last.Seq+int64(last.Bytes)))
			})
		}
	}
	if v := ruled(list, of(true)); v != isVaried {
		return v
	}
	return ruled(list, of(false))
}

// payloadMark is what resets carry.
func payloadMark(list []injection) string {
	resets := false
	v := ruled(list, func(i *injection) string {
		return once(i, func(p *measure.Packet) string {
			switch {
			case !strings.Contains(p.Flags, "R"):
				return "-"
			case p.Bytes == 0:
				resets = true
				return isNothing
			case p.Data != "":
				resets = true
				return p.Data
			}
			resets = true
			return fmt.Sprintf("%d:%.16s", p.Bytes, p.SHA256)
		})
	})
	if !resets {
		return ""
	}
	return v
}

// spacingMark is how long packets of one injection are apart, by powers of ten:
// less than 10 ms the clock of a busy device does not tell.
func spacingMark(list []injection) string {
	var gaps []int64
	for n := range list {
		for k := 1; k < len(list[n].packets); k++ {
			gaps = append(gaps, list[n].packets[k].AtUS-list[n].packets[k-1].AtUS)
		}
	}
	if len(gaps) == 0 {
		return ""
	}
	slices.Sort(gaps)
	switch g := gaps[len(gaps)/2]; {
	case g < 10_000:
		return "<10ms"
	case g < 100_000:
		return "10-100ms"
	}
	return ">100ms"
}
