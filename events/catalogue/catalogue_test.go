package catalogue

import "testing"

func TestCloudflarePack(t *testing.T) {
	c := Cloudflare()
	if got := len(c.Groups()); got != 311 {
		t.Fatalf("groups: %d", got)
	}
	for _, p := range c.Permissions() {
		t.Log(p.Name, p.Class)
	}
}
