package replay

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"sort"
	"strings"
)

// recording is one file. What it holds depends on its kind.
type recording struct {
	name string

	Request  *recordedRequest  `json:"request"`
	Response *recordedResponse `json:"response"`

	Note     string            `json:"note"`
	Ms       float64           `json:"ms"` // how long an exchange took
	URLs     map[string]string `json:"urls"`
	Rows     []json.RawMessage `json:"rows"`
	Timeline []map[string]any  `json:"timeline"`
	Body     any               `json:"body"`
	Log      json.RawMessage   `json:"log"`

	SessionPresent *bool           `json:"sessionPresent"`
	Result         map[string]any  `json:"result"`
	Seen           json.RawMessage `json:"seen"`
	Left           []string        `json:"left"`
	Command        string          `json:"command"`

	// Of listeners: the ports as they were seen, clients by name, and the list afterwards.
	Ports     []map[string]any `json:"ports"`
	Clients   map[string]any   `json:"clients"`
	Closed    map[string]bool  `json:"closed"`
	Listeners []any            `json:"listeners"`

	Probes  []map[string]any `json:"probes"`
	Answers []map[string]any `json:"answers"`
	Answer  map[string]any   `json:"answer"`

	// Of durable storage: ids by node or a list of sites, members, shards, and what clients were told.
	Sites         json.RawMessage `json:"sites"`
	Members       json.RawMessage `json:"members"`
	Storage       json.RawMessage `json:"storage"`
	Connack       json.RawMessage `json:"connack"`
	DurableClient json.RawMessage `json:"durable_client"`
}

type recordedRequest struct {
	Line    string         `json:"line"`
	To      string         `json:"to"`
	Auth    string         `json:"auth"`
	Headers map[string]any `json:"headers"`
	Body    any            `json:"body"`
}

type recordedResponse struct {
	Error   string            `json:"error"` // instead of an answer
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    any               `json:"body"`
}

// part reads a part of a recording whose form depends on the recording.
func part[T any](rec *recording, raw json.RawMessage) (T, error) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("read recording %s: %w", rec.name, err)
	}
	return v, nil
}

// recordedAddress is the address of a recorded node; the last digit tells which. Some recordings were made on other
// networks than RecordedAddresses, and are read as if they had been made there.
var recordedAddress = regexp.MustCompile(`\b127\.\d+\.\d+\.[12]([1-6])\b`)

//go:embed testdata/emqx-5.8.9/*.json
var kept embed.FS

const keptDir = "testdata/emqx-5.8.9"

// load reads all recordings of a directory, by file name without the ending, and lists them by name.
func load(dir fs.FS) (map[string]*recording, []string, error) {
	paths, err := fs.Glob(dir, "*.json")
	if err != nil {
		return nil, nil, fmt.Errorf("list the recordings: %w", err)
	}
	sort.Strings(paths)
	all := map[string]*recording{}
	var names []string
	for _, path := range paths {
		data, err := fs.ReadFile(dir, path)
		if err != nil {
			return nil, nil, fmt.Errorf("read a recording: %w", err)
		}
		r := &recording{name: strings.TrimSuffix(path, ".json")}
		data = recordedAddress.ReplaceAll(data, []byte("127.0.0.1$1"))
		if err := json.Unmarshal(data, r); err != nil {
			return nil, nil, fmt.Errorf("read recording %s: %w", path, err)
		}
		all[r.name] = r
		names = append(names, r.name)
	}
	return all, names, nil
}

// loadWith reads the recordings of a directory, and those that the project keeps to make the situations of the others. Of
// two with one number the directory's counts. asked are the directory's.
func loadWith(dir string) (all map[string]*recording, names []string, asked map[string]bool, err error) {
	all, list, err := load(os.DirFS(dir))
	if err != nil {
		return nil, nil, nil, err
	}
	if len(list) == 0 {
		return nil, nil, nil, fmt.Errorf("no recordings in %s", dir)
	}
	asked = map[string]bool{}
	taken := map[string]bool{}
	for _, name := range list {
		asked[name], taken[number(name)] = true, true
	}
	own, err := fs.Sub(kept, keptDir)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open the kept recordings: %w", err)
	}
	base, others, err := load(own)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, name := range others {
		if !taken[number(name)] {
			all[name] = base[name]
			list = append(list, name)
		}
	}
	sort.Strings(list)
	return all, list, asked, nil
}

// method and path are the two parts of the request line that matter.
func (r *recordedRequest) method() string {
	method, _, _ := strings.Cut(r.Line, " ")
	return method
}

func (r *recordedRequest) path() string {
	parts := strings.Fields(r.Line)
	if len(parts) < 2 {
		return "/"
	}
	return parts[1]
}

// number is what the file's name begins with, such as 060 or 000a.
func number(name string) string {
	n, _, _ := strings.Cut(name, "-")
	return n
}

// translate turns recorded addresses into those that are replayed to, in a text.
type translate []string

func newTranslate(recorded, targets []string) translate {
	var t translate
	for i, from := range recorded {
		if i < len(targets) {
			t = append(t, from, targets[i])
		}
	}
	return t
}

// text goes by way of placeholders: the targets may be among the recorded addresses, in another order.
func (t translate) text(s string) string {
	for i := 0; i < len(t); i += 2 {
		s = strings.ReplaceAll(s, t[i], fmt.Sprintf("\x00%d\x00", i))
	}
	for i := 0; i < len(t); i += 2 {
		s = strings.ReplaceAll(s, fmt.Sprintf("\x00%d\x00", i), t[i+1])
	}
	return s
}

// value translates every text in a JSON value, keys too.
func (t translate) value(v any) any {
	switch v := v.(type) {
	case string:
		return t.text(v)
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = t.value(item)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, item := range v {
			out[t.text(key)] = t.value(item)
		}
		return out
	default:
		return v
	}
}
