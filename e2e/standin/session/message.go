package session

import (
	"github.com/mochi-mqtt/server/v2/packets"
)

// Message is one published message. It is shared by all sessions that get it and never changed. Node and Seq are
// unique together; a node sends to every other node in the order of Seq.
type Message struct {
	Node            string                 `json:"n"`
	Seq             uint64                 `json:"i"`
	Topic           string                 `json:"topic"`
	Payload         []byte                 `json:"payload,omitempty"`
	QoS             byte                   `json:"qos,omitempty"`
	Retain          bool                   `json:"retain,omitempty"`
	Origin          string                 `json:"origin,omitempty"`  // client id of the publisher
	Version         int64                  `json:"version"`           // unix nanoseconds of the publishing
	Expiry          int64                  `json:"expiry,omitempty"`  // unix seconds; 0 is never
	PayloadFormat   byte                   `json:"format,omitempty"`  // MQTT 5 properties from here on
	HasFormat       bool                   `json:"hasFmt,omitempty"`  //
	ContentType     string                 `json:"ctype,omitempty"`   //
	ResponseTopic   string                 `json:"respond,omitempty"` //
	CorrelationData []byte                 `json:"corr,omitempty"`    //
	User            []packets.UserProperty `json:"user,omitempty"`    //
}

// Delivery is a message on its way to one session, with what the subscription made of it.
type Delivery struct {
	Message         *Message `json:"m"`
	QoS             byte     `json:"q,omitempty"`
	Retain          bool     `json:"r,omitempty"`
	SubscriptionIDs []int    `json:"s,omitempty"`
	Shared          bool     `json:"g,omitempty"` // this session was picked from a group: no other node has it
}

// Packet is the PUBLISH that carries the delivery.
func (d Delivery) Packet(packetID uint16, dup bool) packets.Packet {
	m := d.Message
	return packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: d.QoS, Retain: d.Retain, Dup: dup},
		PacketID:    packetID,
		TopicName:   m.Topic,
		Payload:     m.Payload,
		Expiry:      m.Expiry,
		Properties: packets.Properties{
			PayloadFormat: m.PayloadFormat, PayloadFormatFlag: m.HasFormat,
			ContentType: m.ContentType, ResponseTopic: m.ResponseTopic, CorrelationData: m.CorrelationData,
			User: m.User, SubscriptionIdentifier: d.SubscriptionIDs,
		},
	}
}
