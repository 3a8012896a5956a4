package serve

import (
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"watchword.dev/events/token"
	"watchword.dev/services/internal/throttle"
)

// metrics are the figures of a node. Labels are constants of the program, and the
// names that operators give to enforcers: never an id, never a client's path.
type metrics struct {
	registry *prometheus.Registry
	http     *prometheus.HistogramVec
	verify   [3][32]prometheus.Counter // by verdict and reason: no look-up on the hot path
	proxied  *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		http: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "watchword_http_request_duration_seconds", Help: "Time to answer a request, by route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "method", "status"}),
	}
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_verify_total", Help: "Decisions of the verification index.",
	}, []string{"verdict", "reason"})
	for v := range m.verify {
		for r := range m.verify[v] {
			if reason := token.Reason(r).String(); v == int(token.VerdictAllow) == (reason == "") {
				m.verify[v][r] = decisions.WithLabelValues(token.Verdict(v).String(), reason)
			}
		}
	}
	m.proxied = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_proxied_total", Help: "Answers to proxies about their clients' requests: 200, 401, 403, or 503 when nobody could tell.",
	}, []string{"status"})
	m.registry.MustRegister(m.http, decisions, m.proxied, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observeHTTP(route, method string, status int, took time.Duration) {
	m.http.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
}

func (m *metrics) observeDecision(_ token.ID, d *token.Decision) {
	if int(d.Verdict) < len(m.verify) && int(d.Reason) < len(m.verify[0]) {
		if c := m.verify[d.Verdict][d.Reason]; c != nil {
			c.Inc()
		}
	}
}

func (m *metrics) observeProxy(status int) { m.proxied.WithLabelValues(strconv.Itoa(status)).Inc() }

// handler serves /metrics of a node.
func (m *metrics) handler(n *node) http.Handler {
	m.registry.MustRegister(nodeCollector{n})
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

// nodeCollector reads the figures that the parts of a node keep themselves.
type nodeCollector struct{ n *node }

var (
	descSequence = prometheus.NewDesc("watchword_projection_sequence", "Last sequence that a projection has applied.", []string{"projection"}, nil)
	descLag      = prometheus.NewDesc("watchword_projection_lag_records", "Commits between a projection and the head that it knows.", []string{"projection"}, nil)
	descStopped  = prometheus.NewDesc("watchword_projection_stopped", "1 when a projection could not apply something and has stopped.", []string{"projection"}, nil)
	descTokens   = prometheus.NewDesc("watchword_index_tokens", "Tokens in the verification index, revoked ones included.", nil, nil)
	descMemory   = prometheus.NewDesc("watchword_index_memory_bytes", "Memory of the verification index's tokens.", nil, nil)
	descDisk     = prometheus.NewDesc("watchword_index_disk_bytes", "Disk space of the verification index.", nil, nil)
	descPen      = prometheus.NewDesc("watchword_pen_mode", "1 for the mode in which this node's pen is.", []string{"mode"}, nil)
	descThrottle = prometheus.NewDesc("watchword_throttled_total", "Requests and wrong credentials that a limit has refused with 429.", []string{"limit"}, nil)
	descWrong    = prometheus.NewDesc("watchword_wrong_credentials_total", "Credentials that were presented and are not ours, refused with 429 or not.", nil, nil)
	descReports  = prometheus.NewDesc("watchword_usage_reports_total", "Reports of usage that this node has told; failed ones are told again.", []string{"result"}, nil)
	descLost     = prometheus.NewDesc("watchword_usage_lost_total", "Uses of credentials that this node had no room to count.", nil, nil)
	descFeeds    = prometheus.NewDesc("watchword_feed_streams", "Enforcing services that follow the feed over HTTP.", nil, nil)
	descRoutes   = prometheus.NewDesc("watchword_routes", "Routes of proxied services that hold.", nil, nil)
	descBroken   = prometheus.NewDesc("watchword_routes_broken", "1 while the file of routes cannot be used and the routes before it hold on.", nil, nil)
	descLogins   = prometheus.NewDesc("watchword_logins_total", "Logins to NATS that this node has answered, of enforcers, consumers and strangers.", []string{"result"}, nil)
	descEnded    = prometheus.NewDesc("watchword_connections_ended_total", "Connections to NATS that this node has ended because their holder is retired.", nil, nil)
	descLive     = prometheus.NewDesc("watchword_enforcer_instances", "Processes that enforce, by the name of their enforcer and whether they live.", []string{"enforcer", "state"}, nil)
	descBehind   = prometheus.NewDesc("watchword_enforcer_lag_records", "Commits by which the slowest live instance of an enforcer is behind the ledger.", []string{"enforcer"}, nil)
	descSilent   = prometheus.NewDesc("watchword_enforcer_last_receipt_timestamp_seconds", "When the live instance of an enforcer reported that was silent for longest.", []string{"enforcer"}, nil)
	descRefused  = prometheus.NewDesc("watchword_receipts_refused_total", "Receipts that were refused, by why.", []string{"reason"}, nil)
	descBuild    = prometheus.NewDesc("watchword_build_info", "1, with the version of the binary.", []string{"version", "go"}, nil)
)

// Describe implements prometheus.Collector.
func (c nodeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSequence, descLag, descStopped, descTokens, descMemory, descDisk, descPen, descThrottle, descWrong, descReports, descLost, descFeeds, descRoutes, descBroken, descLogins, descEnded, descLive, descBehind, descSilent, descRefused, descBuild} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c nodeCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range c.n.projections() {
		gauge(descSequence, float64(s.Applied.Seq), s.Name)
		gauge(descLag, float64(s.Lag()), s.Name)
		stopped := 0.0
		if s.Stopped != nil {
			stopped = 1
		}
		gauge(descStopped, stopped, s.Name)
	}
	s := c.n.index.get().Stats()
	gauge(descTokens, float64(s.Tokens))
	gauge(descMemory, float64(s.MemoryBytes))
	gauge(descDisk, float64(s.DiskBytes))
	if c.n.pen != nil {
		mode, _ := c.n.pen.Mode()
		gauge(descPen, 1, string(mode))
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for b := range throttle.Bounds {
		counter(descThrottle, c.n.gate.Refused(b), b.String())
	}
	counter(descWrong, c.n.gate.WrongCredentials())
	told := c.n.usage.sender.Stats()
	counter(descReports, told.Sent, "sent")
	counter(descReports, told.Failed, "failed")
	counter(descLost, told.Lost)
	if c.n.fanout != nil {
		gauge(descFeeds, float64(c.n.fanout.Streams()))
	}
	routes, broken := c.n.proxies.figures()
	gauge(descRoutes, routes)
	gauge(descBroken, broken)
	if c.n.callout != nil {
		logins := c.n.callout.Stats()
		counter(descLogins, logins.Admitted, "admitted")
		counter(descLogins, logins.Refused, "refused")
		counter(descLogins, logins.Failed, "unavailable")
		counter(descEnded, logins.Ended)
	}
	c.receipts(gauge, counter)
	version, goVersion := buildVersion()
	gauge(descBuild, 1, version, goVersion)
}

// buildVersion is what the binary knows of its own making.
func buildVersion() (version, goVersion string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", "unknown"
	}
	version = info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			version = s.Value
		}
	}
	if version == "" {
		version = "devel"
	}
	return version, info.GoVersion
}
