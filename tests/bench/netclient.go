package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// The benchmark is its own client in a container: `bench client MODE ADDRESS COUNT`
// prints how long it took.
const (
	clientPath = "/tmp/bench"
	clientWord = "client"
	clientEcho = "echo" // sends a byte and awaits it, COUNT times on one connection
	clientHTTP = "http" // connects and asks for a page, COUNT times
)

func clientMain(mode, address, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	do := map[string]func(string, int) error{clientEcho: roundTrips, clientHTTP: pages}[mode]
	if do == nil {
		return fmt.Errorf("there is no mode %q", mode)
	}
	start := time.Now()
	if err := do(address, n); err != nil {
		return err
	}
	_, err = fmt.Fprintln(os.Stdout, time.Since(start))
	return err
}

func roundTrips(address string, n int) error {
	c, err := net.Dial("tcp4", address)
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 1)
	for range n {
		if _, err := c.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
	}
	return nil
}

func pages(address string, n int) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	for range n {
		c, err := net.Dial("tcp4", address)
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
		text, err := io.ReadAll(c)
		c.Close()
		if err == nil && len(text) == 0 {
			err = fmt.Errorf("%s: the connection ended without an answer", address)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
