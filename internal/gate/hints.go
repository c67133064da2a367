package gate

import (
	"bytes"
	"slices"
)

// Hints of the program that asks, in its own words. Whoever writes a program can
// write other words: they find the careless, and cost the careful a minute.
const (
	HintNoAgent    uint8 = 1 << iota // no User-Agent at all
	HintTool                         // a library or command of programmers, such as curl
	HintHeadless                     // a browser without a window
	HintNoLanguage                   // says that it is a browser, and sends no Accept-Language as all of them do
)

// tools begin the User-Agent of libraries and commands, before a slash. Those
// that apps of shops are made with (okhttp, CFNetwork, Dart) are not among them.
var tools = []string{
	"curl", "Wget", "HTTPie", "PostmanRuntime", "insomnia", "python-requests", "Python-urllib", "python-httpx", "aiohttp", "Scrapy", "Go-http-client",
	"fasthttp", "Java", "Apache-HttpClient", "axios", "node-fetch", "undici", "node", "libwww-perl", "Ruby", "GuzzleHttp", "k6", "wrk", "hey", "ab", "ApacheBench", "vegeta",
}

// headless are in the User-Agent of browsers without a window; those that
// Puppeteer, Playwright and Selenium drive say the first.
var headless = [][]byte{[]byte("Headless"), []byte("PhantomJS"), []byte("jsdom")}

var browser = []byte("Mozilla/")

// HintsOf is what headers say of the program that asks. It allocates nothing, and
// keeps neither.
func HintsOf(userAgent, acceptLanguage []byte) (hints uint8) {
	switch {
	case len(userAgent) == 0:
		return HintNoAgent
	case !bytes.HasPrefix(userAgent, browser):
		product, _, _ := bytes.Cut(userAgent, []byte("/"))
		if isTool(product) || bytes.Contains(userAgent, []byte("aiohttp/")) { // "Python/3.12 aiohttp/3.9"
			hints = HintTool
		}
	case len(acceptLanguage) == 0:
		hints = HintNoLanguage
	}
	for _, word := range headless {
		if bytes.Contains(userAgent, word) {
			return hints | HintHeadless
		}
	}
	return hints
}

func isTool(product []byte) bool {
	return slices.ContainsFunc(tools, func(name string) bool { return name == string(product) })
}
