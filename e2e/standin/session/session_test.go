package session

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
)

func delivery(n int, qos byte) Delivery {
	return Delivery{Message: &Message{Node: "a", Seq: uint64(n), Topic: "t", Payload: []byte(strconv.Itoa(n))}, QoS: qos}
}

func drain(s *Session) []string {
	var out []string
	for {
		pk, ok := s.Next(0)
		if !ok {
			return out
		}
		out = append(out, string(pk.Payload))
	}
}

func TestWindowAndAcknowledgement(t *testing.T) {
	s := New(2)
	for i := 1; i <= 4; i++ {
		s.Enqueue(delivery(i, 1))
	}
	require.Equal(t, []string{"1", "2"}, drain(s))
	require.Equal(t, 2, s.InflightLen())
	require.False(t, s.Done(77), "an id that is not in flight")
	require.True(t, s.Done(1))
	require.False(t, s.Done(1), "acknowledged twice")
	require.Equal(t, []string{"3"}, drain(s))
	s.Enqueue(delivery(5, 0))
	require.Equal(t, []string{"5"}, drain(s), "QoS 0 passes a full window")
}

func TestQueueLosesItsOldest(t *testing.T) {
	s := New(0)
	for i := range MaxQueue + 10 {
		s.Enqueue(delivery(i, byte(i%2)))
	}
	require.Equal(t, MaxQueue, s.QueueLen())
	require.Equal(t, 10, s.Dropped())
	pk, ok := s.Next(0)
	require.True(t, ok)
	require.Equal(t, "10", string(pk.Payload))
}

func TestExpiredMessagesAreLeftOut(t *testing.T) {
	s := New(0)
	old := delivery(1, 1)
	old.Message.Expiry = 99
	s.Enqueue(old)
	s.Enqueue(delivery(2, 1))
	pk, ok := s.Next(100)
	require.True(t, ok)
	require.Equal(t, "2", string(pk.Payload))
}

func TestResendKeepsOrderAndPhase(t *testing.T) {
	s := New(0)
	for i := 1; i <= 3; i++ {
		s.Enqueue(delivery(i, 2))
	}
	drain(s)
	require.True(t, s.Received(2))
	require.False(t, s.Received(9))
	again := s.Resend()
	require.Len(t, again, 3)
	require.Equal(t, []byte{packets.Publish, packets.Pubrel, packets.Publish},
		[]byte{again[0].FixedHeader.Type, again[1].FixedHeader.Type, again[2].FixedHeader.Type})
	require.True(t, again[0].FixedHeader.Dup)
	require.Equal(t, uint16(2), again[1].PacketID)
}

func TestPacketIDsAreNeverZeroNorTaken(t *testing.T) {
	s := New(0)
	s.lastID = 65534
	s.inflight = []flight{{ID: 65535}, {ID: 1}}
	require.Equal(t, uint16(2), s.freeID())
}

func TestAwaitingRelease(t *testing.T) {
	s := New(0)
	fresh, full := s.AwaitRel(1)
	require.True(t, fresh)
	require.False(t, full)
	fresh, _ = s.AwaitRel(1)
	require.False(t, fresh, "sent again")
	for i := 2; i <= MaxAwaitingRel; i++ {
		s.AwaitRel(uint16(i))
	}
	_, full = s.AwaitRel(MaxAwaitingRel + 1)
	require.True(t, full)
	require.True(t, s.Release(1))
	require.False(t, s.Release(1))
}

// A session that travels as JSON is the same on the other side.
func TestSnapshotRoundTrip(t *testing.T) {
	s := New(0)
	s.Subscribe(packets.Subscription{Filter: "a/#", Qos: 1, Identifier: 7, NoLocal: true})
	for i := 1; i <= 40; i++ {
		s.Enqueue(delivery(i, byte(i%3)))
	}
	drain(s)
	for i := 41; i <= 60; i++ {
		s.Enqueue(delivery(i, byte(i%3)))
	}
	s.AwaitRel(9)
	data, err := json.Marshal(s.Export())
	require.NoError(t, err)
	var snap Snapshot
	require.NoError(t, json.Unmarshal(data, &snap))
	other := Import(snap)
	require.Equal(t, s.Export(), other.Export())
	require.Equal(t, s.Resend(), other.Resend())
	require.Equal(t, drain(s), drain(other))
}

// Whatever part of a publisher's messages comes to the old node and from wherever on they come to the new one too:
// the merged session has each of them once, in order.
func TestMergeHasEveryMessageOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		total := 1 + rng.IntN(30)
		oldHas := rng.IntN(total + 1)       // the old node has the first ones
		newFrom := 1 + rng.IntN(oldHas+1)   // the new one has those from here on, with an overlap
		snapshotted := rng.IntN(oldHas + 1) // of the old node's, these were in the session before
		var inSession, pending, fresh []Delivery
		for i := 1; i <= total; i++ {
			if i <= snapshotted {
				inSession = append(inSession, delivery(i, 1))
			} else if i <= oldHas {
				pending = append(pending, delivery(i, 1))
			}
			if i >= newFrom {
				fresh = append(fresh, delivery(i, 1))
			}
		}
		s := New(0)
		for _, d := range inSession {
			s.Enqueue(d)
		}
		shared := delivery(1, 1)
		shared.Shared = true
		s.Merge(pending, append(fresh, shared), map[string]uint64{"a": uint64(oldHas)})
		queue := s.queued()
		require.Len(t, queue, total+1)
		for i, d := range queue[:total] {
			require.EqualValues(t, i+1, d.Message.Seq)
		}
		require.True(t, queue[total].Shared, "a message that only this member of a group got is never left out")
	}
}
