package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"sync"

	"govah/measure"
	"govah/record"
)

// Measurements cuts lines of measurement-v1, or of About and Event, into segments: each value that can
// identify, by the class tag of its field, is one, without its quotation
// marks; what is between them is of class None. A line that is not wholly
// known (another version's, another program's, damaged) is content of others.
func Measurements(name string, lines []byte) File {
	c := cutter{data: lines}
	for at := 0; at < len(lines); {
		end := len(lines)
		if i := bytes.IndexByte(lines[at:], '\n'); i >= 0 {
			end = at + i
		}
		c.line(at, end)
		at = end + 1
	}
	return c.file(name)
}

// cutter collects the segments of a file.
type cutter struct {
	data []byte
	segs []Segment
	done int // bytes that are cut
	at   int // of the scanner
	end  int
}

// cut makes [from, to) a segment of its own.
func (c *cutter) cut(from, to int, class Class) {
	if from == to || class == None {
		return
	}
	c.plain(from)
	c.segs = append(c.segs, Segment{class, to - from})
	c.done = to
}

// plain makes what is not cut up to a place a segment of class None.
func (c *cutter) plain(to int) {
	if to > c.done {
		c.segs = append(c.segs, Segment{None, to - c.done})
		c.done = to
	}
}

func (c *cutter) file(name string) File {
	c.plain(len(c.data))
	return File{Name: name, Kind: Text, Data: c.data, Segments: c.segs, Size: uint32(len(c.segs))}
}

var lineTypes = map[record.Kind]reflect.Type{
	record.KindRun:            reflect.TypeFor[measure.Run](),
	record.KindMeasurement:    reflect.TypeFor[measure.Measurement](),
	record.KindVerdict:        reflect.TypeFor[measure.Verdict](),
	record.KindLocation:       reflect.TypeFor[measure.Location](),
	record.KindIdentification: reflect.TypeFor[measure.Identification](),
	record.KindBody:           reflect.TypeFor[measure.Body](),
	record.KindEnd:            reflect.TypeFor[measure.End](),
	record.KindConnection:     reflect.TypeFor[measure.Connection](),
	"about":                   reflect.TypeFor[About](),
	"custody":                 reflect.TypeFor[Event](),
}

func (c *cutter) line(from, to int) {
	if len(bytes.TrimSpace(c.data[from:to])) == 0 {
		return
	}
	if t, ok := lineTypes[record.Sniff(c.data[from:to])]; ok {
		c.object(t, from, to)
		return
	}
	c.cut(from, to, Foreign)
}

// object cuts the JSON object in [from, to), or all of it if it is not of
// the type t.
func (c *cutter) object(t reflect.Type, from, to int) {
	segs, done := len(c.segs), c.done
	c.at, c.end = from, to
	if json.Valid(c.data[from:to]) && c.value(t, rule{}) == nil {
		return
	}
	c.segs, c.done = c.segs[:segs], done
	c.cut(from, to, Foreign)
}

// rule is what a field's values are, by their kind.
type rule struct{ text, number Class }

var errUnknown = errors.New("not of the type")

func (c *cutter) peek() byte {
	for c.at < c.end {
		switch b := c.data[c.at]; b {
		case ' ', '\t', '\r', '\n':
			c.at++
		default:
			return b
		}
	}
	return 0
}

// value walks over one value of valid JSON.
func (c *cutter) value(t reflect.Type, r rule) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch b := c.peek(); b {
	case '{':
		c.at++
		if t.Kind() != reflect.Struct {
			return errUnknown
		}
		fields := fieldsOf(t)
		for c.peek() != '}' {
			from := c.at
			c.str()
			f, ok := fields[string(c.data[from+1:c.at-1])]
			if !ok {
				return errUnknown
			}
			c.peek()
			c.at++ // the colon
			if err := c.value(f.typ, f.rule); err != nil {
				return err
			}
			if c.peek() == ',' {
				c.at++
			}
		}
		c.at++
	case '[':
		c.at++
		if t.Kind() != reflect.Slice {
			return errUnknown
		}
		for c.peek() != ']' {
			if err := c.value(t.Elem(), r); err != nil {
				return err
			}
			if c.peek() == ',' {
				c.at++
			}
		}
		c.at++
	case '"':
		if t.Kind() != reflect.String && (t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Uint8) {
			return errUnknown
		}
		from := c.at
		c.str()
		if bytes.HasPrefix(c.data[from+1:], []byte(measure.UnknownFailurePrefix)) {
			r.text = Foreign // goes on in the system's words, which can have addresses in them
		}
		c.cut(from+1, c.at-1, r.text)
	case 't', 'f', 'n':
		if b != 'n' && t.Kind() != reflect.Bool {
			return errUnknown
		}
		for c.at < c.end && c.data[c.at] >= 'a' && c.data[c.at] <= 'z' {
			c.at++
		}
	default:
		if k := t.Kind(); k < reflect.Int || k > reflect.Uint64 {
			return errUnknown
		}
		from := c.at
		for c.at < c.end && strings.IndexByte("+-.eE0123456789", c.data[c.at]) >= 0 {
			c.at++
		}
		c.cut(from, c.at, r.number)
	}
	return nil
}

// str passes over a string.
func (c *cutter) str() {
	for c.at++; c.data[c.at] != '"'; c.at++ {
		if c.data[c.at] == '\\' {
			c.at++
		}
	}
	c.at++
}

type jsonField struct {
	typ  reflect.Type
	rule rule
}

var fieldCache sync.Map // reflect.Type to map[string]jsonField

// fieldsOf are the fields of a struct by their names in JSON.
func fieldsOf(t reflect.Type) map[string]jsonField {
	if m, ok := fieldCache.Load(t); ok {
		return m.(map[string]jsonField)
	}
	m := map[string]jsonField{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		text := classOf(f)
		m[name] = jsonField{f.Type, rule{text, numbers[t.Name()+"."+f.Name]}}
	}
	fieldCache.Store(t, m)
	return m
}

// classOf is the class of a field's text. A tag that is not known is content
// of others: nothing is shown for want of a word.
func classOf(f reflect.StructField) Class {
	switch tag := f.Tag.Get("class"); {
	case tag == "none":
		return None
	case tag == "network" && strings.HasSuffix(f.Name, "Country"):
		return Location
	case tag == "time" || tag == "target" || tag == "client" || tag == "network":
		c, _ := ParseClass(tag)
		return c
	}
	return Foreign
}

// numbers are the integers that identify: measure's tags are of text alone.
var numbers = map[string]Class{
	"Vantage.ASN":           Network,
	"Vantage.ResolverASN":   Network,
	"Vantage.ClockOffsetMS": Client, // it is this device's, from run to run
	"Observation.ASN":       Target,
	"DNSAnswer.ASN":         Foreign, // of the address that was answered
	"ICMP.ASN":              Network,
	"Place.FromASN":         Network,
	"Place.ToASN":           Network,
	"Router.ASN":            Network,
	"Location.RemoteASN":    Target,
	"Path.LocalPort":        Client,
	"Arrival.Port":          Client, // as the far end saw it, behind a NAT
	"Packet.Seq":            Client, // of what was sent; what answers repeats it
	"Packet.Ack":            Client,
	"Packet.IPID":           Client, // a counter of the device's in some systems
}
