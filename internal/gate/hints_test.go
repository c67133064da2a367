package gate

import "testing"

const (
	chrome  = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Mobile Safari/537.36"
	wechat  = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 MicroMessenger/8.0.50(0x18003233) NetType/WIFI Language/zh_CN"
	without = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/129.0.0.0 Safari/537.36"
)

func TestHints(t *testing.T) {
	f := func(agent, language string, want uint8) {
		t.Helper()
		if got := HintsOf([]byte(agent), []byte(language)); got != want {
			t.Errorf("%q, %q: %04b, want %04b", agent, language, got, want)
		}
	}
	f(chrome, "zh-CN,zh;q=0.9", 0)
	f(wechat, "zh-cn", 0)
	f("okhttp/4.12.0", "", 0) // an app of a shop
	f("Shop/7.1 CFNetwork/1494.0.7 Darwin/23.4.0", "", 0)
	f("Java Café/1.0", "", 0)
	f("", "", HintNoAgent)
	f("", "en", HintNoAgent)
	f(chrome, "", HintNoLanguage)
	f(without, "en", HintHeadless)
	f(without, "", HintHeadless|HintNoLanguage)
	f("Mozilla/5.0 (Unknown; Linux x86_64) AppleWebKit/538.1 (KHTML, like Gecko) PhantomJS/2.1.1 Safari/538.1", "en", HintHeadless)
	f("Mozilla/5.0 (linux) AppleWebKit/537.36 (KHTML, like Gecko) jsdom/22.1.0", "en", HintHeadless)
	f("curl/8.5.0", "", HintTool)
	f("curl", "", HintTool)
	f("python-requests/2.32.3", "", HintTool)
	f("Go-http-client/1.1", "", HintTool)
	f("Python/3.12 aiohttp/3.9.5", "", HintTool)
	f("fasthttp", "zh", HintTool)
}

func BenchmarkHintsOf(b *testing.B) {
	agent, language := []byte(chrome), []byte("zh-CN")
	if n := testing.AllocsPerRun(100, func() { HintsOf(agent, language) }); n != 0 {
		b.Fatalf("%v allocations", n)
	}
	for b.Loop() {
		HintsOf(agent, language)
	}
}
