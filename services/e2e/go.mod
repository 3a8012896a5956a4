module watchword.dev/services/e2e

go 1.26.0
