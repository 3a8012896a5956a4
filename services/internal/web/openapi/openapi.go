// Package openapi holds the OpenAPI 3.1 document of the HTTP API. Its tests
// run the whole API, with the real pen and the real projections, and hold every
// request and answer against the document.
package openapi

import (
	_ "embed"
	"net/http"

	"watchword.dev/services/internal/web"
)

// Document is the OpenAPI document, as it is served.
//
//go:embed openapi.json
var Document []byte

// Routes adds /openapi.json.
func Routes(rt *web.Router) {
	rt.Handle(http.MethodGet, "/openapi.json", func(x *web.Exchange) error {
		x.JSON(http.StatusOK, Document)
		return nil
	})
}
