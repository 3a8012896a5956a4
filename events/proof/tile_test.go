package proof_test

import (
	"errors"
	"math"
	"testing"

	"watchword.dev/events/proof"
)

// TestTilePaths: the examples of the format's text.
func TestTilePaths(t *testing.T) {
	for path, want := range map[string]proof.Tile{
		"tile/0/x001/x234/067":       {Index: 1234067, Width: 256},
		"tile/0/x001/x234/067.p/112": {Index: 1234067, Width: 112},
		"tile/1/000.p/17":            {Level: 1, Width: 17},
		"tile/2/000.p/1":             {Level: 2, Width: 1},
		"tile/63/000":                {Level: 63, Width: 256},
	} {
		if got, err := proof.ParseTile(path); err != nil || got != want || want.Path() != path {
			t.Errorf("%s: %+v, %v; %s", path, got, err, want.Path())
		}
	}
	for _, bad := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/00/000", "tile/-1/000",
		"tile/data/000", "tile/entries/000", "tile/64/000", "tile/0/x000/000", "tile/0/001/000", "tile/0/x001/x000",
		"tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/007", "tile/0/000.p/", "tile/0/000.p/x", "/tile/0/000",
		"tile/0/000/", "tile/8/0/000", "tile/0/../000", "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/999",
	} {
		if got, err := proof.ParseTile(bad); !errors.Is(err, proof.ErrMalformed) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

// TestTilesOfTree: the tree of 70,000 leaves that the format's text describes.
func TestTilesOfTree(t *testing.T) {
	for _, tt := range []struct {
		tile proof.Tile
		in   bool
	}{
		{proof.Tile{Index: 272, Width: 256}, true},
		{proof.Tile{Index: 273, Width: 112}, true},
		{proof.Tile{Index: 273, Width: 111}, true},
		{proof.Tile{Index: 273, Width: 113}, false},
		{proof.Tile{Index: 274, Width: 1}, false},
		{proof.Tile{Level: 1, Width: 256}, true},
		{proof.Tile{Level: 1, Index: 1, Width: 17}, true},
		{proof.Tile{Level: 1, Index: 1, Width: 18}, false},
		{proof.Tile{Level: 2, Width: 1}, true},
		{proof.Tile{Level: 2, Width: 2}, false},
		{proof.Tile{Level: 7, Width: 1}, false},
		{proof.Tile{Level: 8, Width: 1}, false},
		{proof.Tile{Level: -1, Width: 1}, false},
		{proof.Tile{Width: 0}, false},
		{proof.Tile{Width: 257}, false},
		{proof.Tile{Index: math.MaxUint64, Width: 256}, false},
		{proof.Tile{Index: 1 << 56, Width: 256}, false},
	} {
		if tt.tile.In(70000) != tt.in {
			t.Errorf("%+v: %v", tt.tile, !tt.in)
		}
	}
	if (proof.Tile{Width: 1}).In(0) {
		t.Error("the empty tree has a tile")
	}
}

func FuzzParseTile(f *testing.F) {
	f.Add("tile/0/x001/x234/067.p/112")
	f.Add("tile/3/000")
	f.Fuzz(func(t *testing.T, path string) {
		tile, err := proof.ParseTile(path)
		switch {
		case err == nil && tile.Path() != path:
			t.Fatalf("another form was taken: %q, %q", path, tile.Path())
		case err != nil && !errors.Is(err, proof.ErrMalformed):
			t.Fatalf("an error of no kind: %v", err)
		}
	})
}
