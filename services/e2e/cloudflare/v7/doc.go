// Package v7 adapts cloudflare-go v7. It is package v6 with the other version
// in its import paths: nothing that the tests use has changed.
//
//go:generate sh -c "(echo '// Code generated from v6.go by go generate. DO NOT EDIT.'; echo; echo 'package v7'; sed -e '1,/^package/d' -e 's/v6/v7/g' ../v6/v6.go) >v7.go"
package v7
