package serve

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	merkle "golang.org/x/mod/sumdb/tlog"

	"govah/evidence/tlog"
)

const (
	bundleItem = 2 + tlog.EntrySize // bytes of an entry in a bundle: its length, and itself
	maxLevel   = 7                  // of a tree of at most 2^62 leaves; paths may name up to 63
)

// tile is a tile or an entry bundle (level -1): w of 256 items.
type tile struct {
	level int
	n     int64
	w     int
}

func (t tile) path() string { return tlog.TilePath(t.level, t.n, t.w) }

// itemSize is the bytes of one item.
func (t tile) itemSize() int {
	if t.level == tlog.EntryLevel {
		return bundleItem
	}
	return merkle.HashSize
}

// parseTilePath reads a path in its one canonical form.
func parseTilePath(s string) (tile, error) {
	bad := errors.New("no path of a tile")
	rest, ok := strings.CutPrefix(s, "tile/")
	if !ok || len(s) > 64 {
		return tile{}, bad
	}
	level, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return tile{}, bad
	}
	t := tile{level: tlog.EntryLevel, w: tlog.TileWidth}
	if level != "entries" {
		n, err := tlog.ParseDecimal(level)
		if err != nil || n > 63 {
			return tile{}, bad
		}
		t.level = int(n)
	}
	if before, w, ok := strings.Cut(rest, ".p/"); ok {
		n, err := tlog.ParseDecimal(w)
		if err != nil || n < 1 || n >= tlog.TileWidth {
			return tile{}, bad
		}
		rest, t.w = before, int(n)
	}
	parts := strings.Split(rest, "/")
	for i, part := range parts {
		if i < len(parts)-1 {
			if part, ok = strings.CutPrefix(part, "x"); !ok {
				return tile{}, bad
			}
		}
		if len(part) != 3 || strings.Trim(part, "0123456789") != "" || t.n > tlog.MaxTree/1000 {
			return tile{}, bad
		}
		n, _ := strconv.Atoi(part)
		t.n = t.n*1000 + int64(n)
	}
	if t.path() != s {
		return tile{}, bad
	}
	return t, nil
}

// widthAt is how many items of a tile there are in a tree of a size: 0 to 256.
func (t tile) widthAt(size int64) int {
	items := size
	if t.level > 0 {
		items >>= min(tlog.TileHeight*t.level, 63)
	}
	return int(max(0, min(items-t.n*tlog.TileWidth, tlog.TileWidth)))
}

// edge is the right edge of a tree: for each level, the items of the tile that
// is not full yet. It is all of the tree that an append needs.
type edge struct {
	size    int64
	entries []byte   // the partial entry bundle
	levels  [][]byte // the partial tiles; nil or shorter than 256 hashes
}

// clone copies what appends would change.
func (e *edge) clone() *edge {
	c := &edge{size: e.size, entries: append([]byte(nil), e.entries...)}
	for _, l := range e.levels {
		c.levels = append(c.levels, append([]byte(nil), l...))
	}
	return c
}

// tileData is the items of t that the edge holds: those of the tile that is
// not full, at its level.
func (e *edge) tileData(t tile) ([]byte, bool) {
	data, width := e.entries, e.size
	if t.level != tlog.EntryLevel {
		if t.level >= len(e.levels) {
			return nil, false
		}
		data, width = e.levels[t.level], e.size>>(tlog.TileHeight*t.level)
	}
	return data, t.n == width/tlog.TileWidth
}

// add appends an entry and calls full with each bundle and tile that it fills.
func (e *edge) add(entry tlog.Entry, full func(t tile, data []byte) error) error {
	e.entries = append(append(e.entries, 0, tlog.EntrySize), entry[:]...)
	if len(e.entries) == tlog.TileWidth*bundleItem {
		if err := full(tile{tlog.EntryLevel, e.size / tlog.TileWidth, tlog.TileWidth}, e.entries); err != nil {
			return err
		}
		e.entries = nil
	}
	h := merkle.RecordHash(entry[:])
	for level := 0; ; level++ {
		if level == len(e.levels) {
			e.levels = append(e.levels, nil)
		}
		e.levels[level] = append(e.levels[level], h[:]...)
		if len(e.levels[level]) < tlog.TileWidth*merkle.HashSize {
			break
		}
		n := e.size >> (tlog.TileHeight * (level + 1))
		if err := full(tile{level, n, tlog.TileWidth}, e.levels[level]); err != nil {
			return err
		}
		h = tileRoot(e.levels[level])
		e.levels[level] = nil
	}
	e.size++
	return nil
}

// tileRoot is the hash of a full tile: of a perfect tree over its hashes.
func tileRoot(data []byte) merkle.Hash {
	var h [tlog.TileWidth]merkle.Hash
	for i := range h {
		h[i] = merkle.Hash(data[i*merkle.HashSize:])
	}
	for n := tlog.TileWidth; n > 1; n /= 2 {
		for i := range n / 2 {
			h[i] = merkle.NodeHash(h[2*i], h[2*i+1])
		}
	}
	return h[0]
}

// partial lists the tiles that are not full, with their items.
func (e *edge) partial() (tiles []tile, data [][]byte) {
	if len(e.entries) > 0 {
		tiles, data = append(tiles, tile{tlog.EntryLevel, e.size / tlog.TileWidth, len(e.entries) / bundleItem}), append(data, e.entries)
	}
	for level, l := range e.levels {
		if len(l) > 0 {
			tiles, data = append(tiles, tile{level, e.size >> (tlog.TileHeight * (level + 1)), len(l) / merkle.HashSize}), append(data, l)
		}
	}
	return tiles, data
}

// reader reads the tree's hashes: from the edge, and what is full from read.
func (e *edge) reader(read func(tile) ([]byte, error)) merkle.HashReader {
	return merkle.HashReaderFunc(func(indexes []int64) ([]merkle.Hash, error) {
		list := make([]merkle.Hash, len(indexes))
		have := map[tile][]byte{} // full tiles that were read
		for i, index := range indexes {
			at := merkle.TileForIndex(tlog.TileHeight, index)
			t := tile{at.L, at.N, tlog.TileWidth}
			data, ok := e.tileData(t)
			if !ok {
				if data, ok = have[t]; !ok {
					var err error
					if data, err = read(t); err != nil {
						return nil, err
					}
					have[t] = data
				}
			}
			if at.W*merkle.HashSize > len(data) {
				return nil, fmt.Errorf("%s has too few hashes", t.path())
			}
			h, err := merkle.HashFromTile(at, data, index)
			if err != nil {
				return nil, err
			}
			list[i] = h
		}
		return list, nil
	})
}

// root is the tree's hash. All of it is in the edge.
func (e *edge) root() (merkle.Hash, error) {
	return merkle.TreeHash(e.size, e.reader(func(t tile) ([]byte, error) {
		return nil, fmt.Errorf("%s is not of the edge", t.path())
	}))
}
