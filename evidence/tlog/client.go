package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	merkle "golang.org/x/mod/sumdb/tlog"
)

// Client speaks with a log over HTTP. Nothing that it returns is believed
// before a policy was asked.
type Client struct {
	url  string
	http *http.Client
}

// NewClient is a client of the log at a URL prefix.
func NewClient(url string, client *http.Client) (*Client, error) {
	url, err := ParseURL(url)
	if err != nil {
		return nil, err
	}
	return &Client{url: strings.TrimSuffix(url, "/"), http: client}, nil
}

// statusError is an answer other than 200.
type statusError struct {
	status int
	body   string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the log answers %d: %.200s", e.status, strings.TrimSpace(e.body))
}

func (c *Client) do(req *http.Request, limit int64) (*http.Response, []byte, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(body)) > limit {
		return nil, nil, fmt.Errorf("an answer of more than %d bytes", limit)
	}
	return resp, body, nil
}

func (c *Client) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, body, err := c.do(req, limit)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &statusError{resp.StatusCode, string(body)}
	}
	return body, err
}

// Checkpoint is the log's newest checkpoint, signed.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	return c.get(ctx, "checkpoint", MaxCheckpoint)
}

// PendingError says that an entry is in the log, and not yet in a checkpoint
// that the policy believes.
type PendingError struct {
	Index int64
	Why   error // nil: the log has published none that holds it
}

func (e *PendingError) Error() string {
	if e.Why == nil {
		return fmt.Sprintf("the log has the entry at index %d, and no checkpoint yet that holds it", e.Index)
	}
	return fmt.Sprintf("the log has the entry at index %d, and its proof is not sufficient yet: %v", e.Index, e.Why)
}

func (e *PendingError) Unwrap() error { return e.Why }

// Add logs an entry and returns its proof, verified by the policy. If there is
// none until the context ends, the error is a *PendingError: the entry is
// logged, and Add again gives the proof later.
func (c *Client) Add(ctx context.Context, e Entry, p *Policy) ([]byte, Proof, error) {
	pending := &PendingError{Index: -1}
	for wait := time.Second; ; wait = min(2*wait, 10*time.Second) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/add", bytes.NewReader(e[:]))
		if err != nil {
			return nil, Proof{}, err
		}
		req.Header.Set("Content-Type", "application/octet-stream")
		resp, body, err := c.do(req, maxProof)
		switch {
		case err != nil && pending.Index >= 0:
			return nil, Proof{}, pending
		case err != nil:
			return nil, Proof{}, err
		case resp.StatusCode == http.StatusOK:
			proof, err := VerifyProof(body, e[:], p)
			if err == nil {
				return body, proof, nil
			}
			raw, parsed := ParseProof(body)
			if parsed != nil {
				return nil, Proof{}, fmt.Errorf("the log's proof: %w", err)
			}
			pending.Index, pending.Why = raw.Index, err
		case resp.StatusCode == http.StatusAccepted:
			text, ok := strings.CutPrefix(strings.TrimSuffix(string(body), "\n"), "index ")
			index, err := ParseDecimal(text)
			if !ok || err != nil {
				return nil, Proof{}, errors.New("the log's answer has no index")
			}
			pending.Index = index
		case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable:
			if pending.Index < 0 && !waits(ctx, retryAfter(resp)) {
				return nil, Proof{}, &statusError{resp.StatusCode, string(body)}
			}
		default:
			return nil, Proof{}, &statusError{resp.StatusCode, string(body)}
		}
		if pending.Index >= 0 && !waits(ctx, wait) {
			return nil, Proof{}, pending
		}
	}
}

// retryAfter is how long a server asks to wait: 1 to 60 seconds.
func retryAfter(resp *http.Response) time.Duration {
	n, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil {
		n = 5
	}
	return time.Duration(min(max(n, 1), 60)) * time.Second
}

// waits waits, if the context lasts as long.
func waits(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < d {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Prove makes the proof of the entry of an index from the log's tiles alone,
// under its newest checkpoint, and verifies it by the policy. Any server of
// the files of a log will do.
func (c *Client) Prove(ctx context.Context, index int64, e Entry, p *Policy) ([]byte, Proof, error) {
	text, err := c.Checkpoint(ctx)
	if err != nil {
		return nil, Proof{}, fmt.Errorf("reading the log's checkpoint: %w", err)
	}
	cp, err := VerifyCheckpoint(text, p)
	if err != nil {
		return nil, Proof{}, err
	}
	if index < 0 || index >= cp.Size {
		return nil, Proof{}, &PendingError{Index: index}
	}
	path, err := merkle.ProveRecord(cp.Size, index, merkle.TileHashReader(merkle.Tree{N: cp.Size, Hash: cp.Root}, &remoteTiles{ctx, c}))
	if err != nil {
		return nil, Proof{}, fmt.Errorf("reading the log's tiles: %w", err)
	}
	proof := RawProof{Index: index, Path: path, Checkpoint: text}.Text()
	got, err := VerifyProof(proof, e[:], p)
	if err != nil {
		return nil, Proof{}, err
	}
	return proof, got, nil
}
