module watchword.dev/projections

go 1.26.0

require watchword.dev/events v0.0.0

replace watchword.dev/events => ../events
