module watchword.dev/services

go 1.26.0

require (
	watchword.dev/events v0.0.0
	watchword.dev/projections v0.0.0
)

replace watchword.dev/events => ../events

replace watchword.dev/projections => ../projections
