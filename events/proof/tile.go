package proof

import (
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// A tile has 256 hashes, and its level counts eight levels of the tree.
const (
	tileHeight = 8
	TileWidth  = 1 << tileHeight
)

// Tile is a piece of the tree: Width hashes beside each other, of subtrees of
// 256^Level leaves (c2sp.org/tlog-tiles). All but those at the right edge of the
// tree have TileWidth hashes. What a tile holds never changes.
type Tile struct {
	Level int    // from 0: hashes of leaves
	Index uint64 // within the level, from 0
	Width int    // 1 to TileWidth
}

// Path returns the tile's path, without a slash before it, such as
// "tile/0/x001/x234/067.p/5".
func (t Tile) Path() string {
	return "tile/" + strings.TrimPrefix(t.tlog().Path(), "tile/8/")
}

// ParseTile reads exactly what Path writes.
func ParseTile(path string) (Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok || len(path) > 64 {
		return Tile{}, fmt.Errorf("%w: not the path of a tile", ErrMalformed)
	}
	tt, err := tlog.ParseTilePath("tile/8/" + rest)
	if err != nil || tt.L < 0 || tt.L > 63 || tt.N > MaxSize {
		return Tile{}, fmt.Errorf("%w: not the path of a tile", ErrMalformed)
	}
	return Tile{Level: tt.L, Index: uint64(tt.N), Width: tt.W}, nil
}

// In says whether a tree of this size has the tile, or has had it as its edge.
func (t Tile) In(size uint64) bool {
	if t.Level < 0 || t.Level > 63/tileHeight || t.Width < 1 || t.Width > TileWidth || t.Index > MaxSize>>tileHeight {
		return false
	}
	return t.Index<<tileHeight+uint64(t.Width) <= size>>(tileHeight*t.Level)
}

// Read returns the tile's hashes, one behind the other, from the hashes of a tree
// that has the tile.
func (t Tile) Read(r tlog.HashReader) ([]byte, error) { return tlog.ReadTileData(t.tlog(), r) }

func (t Tile) tlog() tlog.Tile {
	return tlog.Tile{H: tileHeight, L: t.Level, N: int64(t.Index), W: t.Width}
}
