package localkube_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// serverEnv makes the test program the server that pods of the image test/server run.
const serverEnv = "CLUSTER_TEST_SERVER"

// serverMain serves at port 8080 of the pod's address until it is asked to stop.
func serverMain() {
	var unready, dead atomic.Bool
	status := func(bad *atomic.Bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if bad.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
	}
	set := func(flag *atomic.Bool, value bool) http.HandlerFunc {
		return func(http.ResponseWriter, *http.Request) { flag.Store(value) }
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /name", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(os.Getenv("HOSTNAME"))) })
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(os.Getenv(r.FormValue("name")))) })
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) {
		content, err := os.ReadFile(filepath.Join(os.Getenv("LOCAL_POD_ROOT"), r.FormValue("path")))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = w.Write(content)
	})
	mux.HandleFunc("GET /fetch", func(w http.ResponseWriter, r *http.Request) {
		// As any Go program does, this honours HTTP_PROXY.
		client := &http.Client{Timeout: 10 * time.Second}
		response, err := client.Get(r.FormValue("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = response.Body.Close() }()
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	})
	mux.HandleFunc("GET /readyz", status(&unready))
	mux.HandleFunc("GET /livez", status(&dead))
	mux.HandleFunc("POST /unready", set(&unready, true))
	mux.HandleFunc("POST /ready", set(&unready, false))
	mux.HandleFunc("POST /die", set(&dead, true))
	mux.HandleFunc("POST /say", func(_ http.ResponseWriter, r *http.Request) { fmt.Println(r.FormValue("text")) })
	server := &http.Server{Addr: os.Getenv("LOCAL_POD_ADDRESS") + ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		fmt.Println("asked to stop")
		os.Exit(0)
	}()
	fmt.Println("serving at", server.Addr, os.Args[1:])
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}
