// Serf's own Go client, for the comparison.
//
//	client members ADDRESS IN_FLIGHT SECONDS
//	client stream ADDRESS TYPE
//
// members: for each line on standard input, keep IN_FLIGHT calls of members under way for SECONDS, and print a turn of
// the benchmarks (harness.py): the rate, and the CPU seconds of one call.
//
// stream: print "active" once the stream is open, and then for each event the time at which it came, in nanoseconds
// since 1970, and its name. It ends with its standard input.
//
// Debian has the library: golang-go and golang-github-hashicorp-serf-dev.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/serf/client"
)

func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

type sample struct {
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	CPU   float64 `json:"cpu"`
}

func measure(agent *client.RPCClient, inFlight int, seconds float64) sample {
	var calls int64
	var lanes sync.WaitGroup
	start, before := time.Now(), cpu()
	end := start.Add(time.Duration(seconds * float64(time.Second)))
	for lane := 0; lane < inFlight; lane++ {
		lanes.Add(1)
		go func() {
			defer lanes.Done()
			for time.Now().Before(end) {
				if _, err := agent.Members(); err != nil {
					log.Fatal(err)
				}
				atomic.AddInt64(&calls, 1)
			}
		}()
	}
	lanes.Wait()
	return sample{float64(calls) / time.Since(start).Seconds(), "calls/s", (cpu() - before) / float64(calls)}
}

func members(agent *client.RPCClient, inFlight int, seconds float64) {
	turns := bufio.NewScanner(os.Stdin)
	for turns.Scan() {
		turn := []sample{measure(agent, inFlight, seconds)}
		if err := json.NewEncoder(os.Stdout).Encode(turn); err != nil {
			log.Fatal(err)
		}
	}
}

func stream(agent *client.RPCClient, kind string) {
	events := make(chan map[string]interface{}, 1024)
	if _, err := agent.Stream(kind, events); err != nil {
		log.Fatal(err)
	}
	// The agent replies a moment before it registers the stream: a second round trip makes sure.
	if _, err := agent.Stats(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("active")
	go func() {
		for event := range events {
			fmt.Println(time.Now().UnixNano(), event["Name"])
		}
	}()
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
	}
}

func main() {
	if len(os.Args) < 4 {
		log.Fatal("usage: client members ADDRESS IN_FLIGHT SECONDS | client stream ADDRESS TYPE")
	}
	agent, err := client.NewRPCClient(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	defer agent.Close()
	switch os.Args[1] {
	case "members":
		inFlight, wrong := strconv.Atoi(os.Args[3])
		seconds, alsoWrong := strconv.ParseFloat(os.Args[4], 64)
		if wrong != nil || alsoWrong != nil {
			log.Fatal("IN_FLIGHT and SECONDS are numbers")
		}
		members(agent, inFlight, seconds)
	case "stream":
		stream(agent, os.Args[3])
	default:
		log.Fatal("no such command: ", os.Args[1])
	}
}
