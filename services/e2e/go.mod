module watchword.dev/services/e2e

go 1.26.0

require (
	watchword.dev/events v0.0.0
	watchword.dev/projections v0.0.0
	watchword.dev/services v0.0.0
)

require github.com/go-json-experiment/json v1.27.2 // indirect

replace watchword.dev/services => ..

replace watchword.dev/events => ../../events

replace watchword.dev/projections => ../../projections
