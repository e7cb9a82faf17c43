package known

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

// BenchmarkMatch reads a page of 1 MB, with the shipped rows and with 2,000 and
// 50,000 more. The metric one-by-one/x is how many times longer it takes to
// search the same page with one expression after another for the same rows (of
// the 50,000 with the first 2,000).
func BenchmarkMatch(b *testing.B) {
	page := benchPage()
	for _, more := range []int{0, 2000, 50_000} {
		b.Run(fmt.Sprintf("rows=shipped+%d", more), func(b *testing.B) {
			t, err := Shipped().With(benchList(more))
			if err != nil {
				b.Fatal(err)
			}
			expressions := make([]*regexp.Regexp, 0, 2000)
			for _, s := range t.signatures {
				if s.Where == "body" && len(expressions) < cap(expressions) {
					pattern := s.Pattern
					if s.Match != "regexp" {
						pattern = regexp.QuoteMeta(pattern)
					}
					expressions = append(expressions, regexp.MustCompile(pattern))
				}
			}
			slow := time.Hour
			for range 3 {
				start := time.Now()
				for _, x := range expressions {
					if x.Match(page) {
						b.Fatal("the page is innocent")
					}
				}
				slow = min(slow, time.Since(start))
			}
			b.SetBytes(int64(len(page)))
			b.ResetTimer()
			for range b.N {
				if t.Match(Evidence{Body: page}) != nil {
					b.Fatal("the page is innocent")
				}
			}
			b.ReportMetric(slow.Seconds()/(b.Elapsed().Seconds()/float64(b.N)), "one-by-one/x")
			b.ReportMetric(float64(t.body.size())/(1<<20), "table-MB")
		})
	}
}

// BenchmarkCount only looks at each byte of the same page.
func BenchmarkCount(b *testing.B) {
	page := benchPage()
	b.SetBytes(int64(len(page)))
	for b.Loop() {
		var class [256]int
		for _, c := range page {
			class[c]++
		}
		if class['<'] == 0 {
			b.Fatal("no tags")
		}
	}
}

// BenchmarkWith makes the table of the shipped rows and 2,000 more.
func BenchmarkWith(b *testing.B) {
	list := benchList(2000)
	for b.Loop() {
		if _, err := Shipped().With(list); err != nil {
			b.Fatal(err)
		}
	}
}

var words = strings.Fields(`the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over such our man me even most made after also did many off before must well back through years where much your way down should because long each just those people Mr how too little state good very make world still see own work men day get here old life both between being under three never know same last another while us might great go come since against right came take used himself few house use place during high without again home around small however found access website blocked page network content security policy server request error view privacy cookie login news article comment share contact search menu header footer image video link script style width height color background`)

// benchPage is 1 MB that looks like a page: tags with attributes, words as
// often as in running text, addresses, a script here and there, and a fifth of
// it not in Latin letters.
func benchPage() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	word := func() string { return words[int(float64(len(words))*r.Float64()*r.Float64())] }
	var p bytes.Buffer
	p.WriteString("<!doctype html><html><head><title>A page</title></head><body>\n")
	for i := 0; p.Len() < 1<<20; i++ {
		switch r.IntN(8) {
		case 0:
			fmt.Fprintf(&p, "<div class=\"%s-%s item\" id=\"n%d\" style=\"width:%dpx\">\n", word(), word(), i, r.IntN(900))
		case 1:
			fmt.Fprintf(&p, "<a href=\"https://www.%s-%s.example/%s/%d?%s=%x\" title=\"%s\">%s</a></div>\n", word(), word(), word(), i, word(), r.Uint32(), word(), word())
		case 2:
			fmt.Fprintf(&p, "<script>window.%s=function(a,b){return a.%s(b,%d)||\"%s\"};</script>\n", word(), word(), i, word())
		case 3:
			fmt.Fprintf(&p, "<img src=\"http://cdn.%s.example/%s/%x.png\" alt=\"%s\"><iframe src=\"//%s.example\"></iframe>", word(), word(), r.Uint64(), word(), word())
		case 4:
			p.WriteString("<p>")
			for range 20 {
				for range 2 + r.IntN(8) {
					p.WriteRune(rune('а' + r.IntN(32)))
				}
				p.WriteByte(' ')
			}
			p.WriteString("</p>\n")
		default:
			p.WriteString("<p>")
			for range 30 {
				p.WriteString(word())
				p.WriteByte(' ')
			}
			p.WriteString("</p>\n")
		}
	}
	return p.Bytes()[:1<<20]
}

// benchList is n rows like those of the published lists: titles, addresses of
// block pages, sentences.
func benchList(n int) *List {
	r := rand.New(rand.NewPCG(3, 4))
	word := func() string { return words[r.IntN(len(words))] }
	l := &List{}
	for i := range n {
		s := Signature{ID: fmt.Sprintf("%srow_%d", ImportPrefix, i), Kind: "blockpage", Where: "body", Match: "contains", Confidence: 5}
		switch i % 4 {
		case 0:
			s.Pattern = fmt.Sprintf("<title>%s %s %d %s</title>", word(), word(), i, word())
		case 1:
			s.Pattern = fmt.Sprintf("http://block.%s%d.example/%s/%s.html", word(), i, word(), word())
		case 2:
			for range 9 {
				s.Pattern += word() + " "
			}
			s.Pattern += fmt.Sprint(i)
		case 3:
			s.Pattern = fmt.Sprintf("www.%s-%s%d.example/denied", word(), word(), i)
		}
		l.Signatures = append(l.Signatures, s)
	}
	return l
}
