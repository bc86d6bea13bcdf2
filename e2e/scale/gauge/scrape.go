package gauge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Scrape is one look at a process' metrics.
type Scrape struct {
	// Took is how long it took until the last byte had come.
	Took time.Duration
	// Bytes is how long the text is.
	Bytes int
	text  []byte
}

// Metrics scrapes as Prometheus does.
func Metrics(ctx context.Context, client *http.Client, url string) (Scrape, error) {
	began := time.Now()
	text, err := Get(ctx, client, url)
	return Scrape{Took: time.Since(began), Bytes: len(text), text: text}, err
}

// Get returns the body of an answer.
func Get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // It was only read.
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, response.Status)
	}
	return body, nil
}

// Sum adds up the samples of a metric whose labels contain a text, and counts them.
func (s Scrape) Sum(metric, labels string) (sum float64, samples int) {
	lines := bufio.NewScanner(bytes.NewReader(s.text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, found := strings.CutPrefix(lines.Text(), metric)
		if !found || rest == "" || rest[0] != ' ' && rest[0] != '{' || !strings.Contains(rest, labels) {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err == nil {
			sum += value
			samples++
		}
	}
	return sum, samples
}
