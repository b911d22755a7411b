package localenv

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// NATS is a JetStream server inside this process. What it has acknowledged is
// on disk, unless the caller has tuned that away.
type NATS struct {
	dir     string
	options server.Options

	mu   sync.Mutex
	stop func() error // nil: not running
}

// StartNATS starts a server on the loopback that stores in dir. Port 0 takes a
// free one. A tune changes the server's options before the start.
func StartNATS(dir string, port int, tune ...func(*server.Options)) (*NATS, error) {
	dir, err := openDir(dir)
	if err != nil {
		return nil, fmt.Errorf("localenv: nats: %w", err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	n := &NATS{dir: dir, options: server.Options{
		ServerName: "jetbox", Host: "127.0.0.1", Port: port,
		JetStream: true, StoreDir: filepath.Join(dir, "nats"), SyncAlways: true,
		NoSigs: true, DisableJetStreamBanner: true,
	}}
	for _, f := range tune {
		f(&n.options)
	}
	if err := n.Start(); err != nil {
		return nil, err
	}
	return n, nil
}

// URL is where clients connect; it stays the same over Stop and Start.
func (n *NATS) URL() string {
	return "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(n.options.Port))
}

// StoreDir holds the streams. Removing it while the server is stopped is how a
// broker loses its disk.
func (n *NATS) StoreDir() string { return n.options.StoreDir }

// Start starts a stopped server, with the port and the streams it had.
func (n *NATS) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stop != nil {
		return nil
	}
	if err := n.start(); err != nil {
		return fmt.Errorf("localenv: nats: start: %w", err)
	}
	return nil
}

// Stop ends the server and keeps its streams. A second call does nothing.
func (n *NATS) Stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stop == nil {
		return nil
	}
	stop := n.stop
	n.stop = nil
	if err := stop(); err != nil {
		return fmt.Errorf("localenv: nats: stop: %w", err)
	}
	return nil
}

func (n *NATS) start() error {
	unlock, err := lock(filepath.Join(n.dir, "nats.lock"))
	if err != nil {
		return err
	}
	log, err := openNATSLog(filepath.Join(n.dir, "nats.log"))
	if err != nil {
		return errors.Join(err, unlock())
	}
	options := n.options // the server changes its own
	s, err := run(&options, log)
	if err != nil {
		return errors.Join(err, log.close(), unlock())
	}
	n.options.Port = s.Addr().(*net.TCPAddr).Port
	n.stop = func() error {
		shutdown(s)
		return errors.Join(log.close(), unlock())
	}
	return nil
}

func run(options *server.Options, log *natsLog) (*server.Server, error) {
	s, err := server.NewServer(options)
	if err != nil {
		return nil, err
	}
	s.SetLogger(log, false, false)
	s.Start()
	for deadline := time.Now().Add(startTimeout); !s.ReadyForConnections(100 * time.Millisecond); {
		select {
		case reason := <-log.fatal:
			shutdown(s)
			return nil, errors.New(reason)
		default:
		}
		if time.Now().After(deadline) {
			shutdown(s)
			return nil, fmt.Errorf("not ready after %v (%s)", startTimeout, log.file.Name())
		}
	}
	return s, nil
}

func shutdown(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// natsLog is the server's log file. The server's own logger would end this
// process at a fatal line.
type natsLog struct {
	file  *os.File
	fatal chan string // the first fatal line
}

func openNATSLog(path string) (*natsLog, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return &natsLog{f, make(chan string, 1)}, nil
}

func (l *natsLog) close() error { return l.file.Close() }

func (l *natsLog) write(level, format string, v []any) {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	// A full disk must not stop the server for its log's sake.
	_, _ = fmt.Fprintf(l.file, "%s %s %s\n", now, level, fmt.Sprintf(format, v...))
}

// Fatalf notes why the server cannot start.
func (l *natsLog) Fatalf(format string, v ...any) {
	l.write("FATAL", format, v)
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}

func (l *natsLog) Errorf(format string, v ...any)  { l.write("ERROR", format, v) }
func (l *natsLog) Warnf(format string, v ...any)   { l.write("WARN", format, v) }
func (l *natsLog) Noticef(format string, v ...any) { l.write("INFO", format, v) }
func (l *natsLog) Debugf(string, ...any)           {}
func (l *natsLog) Tracef(string, ...any)           {}
