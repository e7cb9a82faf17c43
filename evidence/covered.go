package evidence

import (
	"bytes"
	"encoding/json"

	"govah/measure"
	"govah/record"
)

// Why a part of a receipt is withheld.
const encodingNonce = "the nonce of a receipt, with which guesses at what is withheld could be tried"

// receipts notes the requests of receipts about observations of which c
// withholds something: the nonce in them keys the hashes that a helper signed,
// and who has it can try guesses until one fits. Without it the note tells
// nothing. It says whether there are new ones.
func (r *redacting) receipts(c *Bundle) (more bool) {
	all := c.pieces()
	for n := range c.Files {
		f := &c.Files[n]
		if f.Kind != Text {
			continue
		}
		end := 0
		for l := range bytes.Lines(f.Data) {
			at := end
			end += len(l)
			if !bytes.Contains(l, []byte(`"receipt":{`)) || record.Sniff(l) != record.KindMeasurement {
				continue
			}
			for _, request := range uncovered(l, func(from, to int) bool { return withheldIn(all[n], at+from, at+to) }) {
				for _, i := range covering(all[n], at+request.From, at+request.To) {
					if e := &c.entries[i]; e.Class != None && !r.away(e) {
						r.leaves[e.key()] = true
						r.widen(c, e, Leak{From: r.from[e.key()], Identifier: -1, Encoding: encodingNonce})
						more = true
					}
				}
			}
		}
	}
	return more
}

// withheldIn says whether anything in [from, to) is withheld.
func withheldIn(pieces []piece, from, to int) bool {
	for i := pieceAt(pieces, from); i < len(pieces) && pieces[i].from < to; i++ {
		if pieces[i].entry < 0 {
			return true
		}
	}
	return false
}

// uncovered gives where in a measurement's line the requests of those receipts
// stand that are about an observation in which something is gone.
func uncovered(line []byte, gone func(from, to int) bool) (requests []Range) {
	type seen struct {
		ID      string           `json:"id"`
		Receipt *measure.Receipt `json:"receipt"`
	}
	var list []seen
	var at []Range
	lost := map[string]bool{}
	for _, o := range elements(line, memberOf(line, Range{0, len(line)}, "observations")) {
		var s seen
		if json.Unmarshal(line[o.From:o.To], &s) != nil {
			continue
		}
		list, at = append(list, s), append(at, o)
		lost[s.ID] = lost[s.ID] || gone(o.From, o.To)
	}
	for i, s := range list {
		if s.Receipt == nil {
			continue
		}
		for _, c := range s.Receipt.Covers {
			if lost[c.ID] {
				if q := memberOf(line, memberOf(line, at[i], "receipt"), "request"); q.To > 0 {
					requests = append(requests, q)
				}
				break
			}
		}
	}
	return requests
}

// memberOf gives where the value of a name stands in the JSON object in r;
// nothing if there is none.
func memberOf(b []byte, r Range, name string) Range {
	d := json.NewDecoder(bytes.NewReader(b[r.From:r.To]))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return Range{}
	}
	for d.More() {
		key, err := d.Token()
		var v json.RawMessage
		if err != nil || d.Decode(&v) != nil {
			break
		}
		if key == name {
			end := r.From + int(d.InputOffset())
			return Range{end - len(v), end}
		}
	}
	return Range{}
}

// elements gives where the elements of the JSON array in r stand.
func elements(b []byte, r Range) (list []Range) {
	d := json.NewDecoder(bytes.NewReader(b[r.From:r.To]))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil
	}
	for d.More() {
		var v json.RawMessage
		if d.Decode(&v) != nil {
			break
		}
		end := r.From + int(d.InputOffset())
		list = append(list, Range{end - len(v), end})
	}
	return list
}
