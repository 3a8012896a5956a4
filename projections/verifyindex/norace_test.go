//go:build !race

package verifyindex

const raceEnabled = false
