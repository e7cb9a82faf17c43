package tlog

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	merkle "golang.org/x/mod/sumdb/tlog"
)

// Tiles of a log (c2sp.org/tlog-tiles).
const (
	TileHeight = 8
	TileWidth  = 1 << TileHeight // hashes, or entries of a bundle
	EntryLevel = -1              // stands for entry bundles where a level is asked for
)

// TilePath is where a tile of w items is, on disk and over HTTP.
func TilePath(level int, n int64, w int) string {
	of := "entries"
	if level != EntryLevel {
		of = strconv.Itoa(level)
	}
	p := ""
	for ; ; n /= 1000 {
		if p == "" {
			p = fmt.Sprintf("%03d", n%1000)
		} else {
			p = fmt.Sprintf("x%03d/%s", n%1000, p)
		}
		if n < 1000 {
			break
		}
	}
	p = "tile/" + of + "/" + p
	if w < TileWidth {
		p += ".p/" + strconv.Itoa(w)
	}
	return p
}

// remoteTiles implements golang.org/x/mod's TileReader, which checks what it
// reads.
type remoteTiles struct {
	ctx context.Context
	c   *Client
}

func (r *remoteTiles) Height() int                       { return TileHeight }
func (r *remoteTiles) SaveTiles([]merkle.Tile, [][]byte) {}
func (r *remoteTiles) ReadTiles(tiles []merkle.Tile) ([][]byte, error) {
	list := make([][]byte, len(tiles))
	for i, m := range tiles {
		path := TilePath(m.L, m.N, m.W)
		data, err := r.c.get(r.ctx, path, TileWidth*merkle.HashSize)
		var status *statusError
		if errors.As(err, &status) && status.status == http.StatusNotFound && m.W < TileWidth { // a full one may have taken its place
			path = TilePath(m.L, m.N, TileWidth)
			data, err = r.c.get(r.ctx, path, TileWidth*merkle.HashSize)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(data) < m.W*merkle.HashSize {
			return nil, fmt.Errorf("%s has %d bytes", path, len(data))
		}
		list[i] = data[:m.W*merkle.HashSize]
	}
	return list, nil
}
