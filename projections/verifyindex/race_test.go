//go:build race

package verifyindex

const raceEnabled = true
