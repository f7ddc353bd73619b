// Echo with nothing but Go's standard library: one goroutine per client.
//
// Usage: echo PORT (0 takes a free one)
package main

import (
	"fmt"
	"net"
	"os"
)

const readBytes = 64 * 1024

func echo(client net.Conn) {
	defer client.Close()
	buffer := make([]byte, readBytes)
	for {
		length, err := client.Read(buffer)
		if err != nil {
			return
		}
		if _, err := client.Write(buffer[:length]); err != nil {
			return
		}
	}
}

func main() {
	port := "0"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	for {
		client, err := listener.Accept()
		if err != nil {
			continue
		}
		go echo(client)
	}
}
