package upgrades

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

const robotSecret = "robot-key"

// TestKeyRotation: a user's API key gets another password while the new nodes are built, the Secret of all keys is emptied while
// clients are moved, and then the key gets another password once more. Running nodes learn of it, nobody is restarted for it, and the
// clients notice nothing.
func TestKeyRotation(t *testing.T) {
	figures := upgrade(t, demo.Config{
		Clients: 1000, MessagesPerSecond: 100, ConnEvictRate: 30, SessEvictRate: 30,
		OnPhase: func(ctx context.Context, e demo.Environment, phase v2beta1.Phase) error {
			switch phase {
			case v2beta1.PhaseProvisioning:
				if err := addRobot(ctx, e, "first-of-the-robot"); err != nil {
					return err
				}
				return robotKnown(ctx, e, "first-of-the-robot")
			case v2beta1.PhaseEvacuating:
				return rotateInMidEvacuation(ctx, e)
			case v2beta1.PhasePending, v2beta1.PhaseSwitching, v2beta1.PhaseScalingDown, v2beta1.PhaseDone:
			}
			return nil
		},
	})
	require.Zero(t, figures.MessagesLost)
	require.Zero(t, figures.SessionsLost)
	require.Equal(t, figures.Clients, figures.ClientsBack)
	require.Empty(t, figures.Leftovers)
	require.Empty(t, figures.SecretsTold)
}

// addRobot has the specification ask for a key whose password is in a Secret.
func addRobot(ctx context.Context, e demo.Environment, password string) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: robotSecret}, StringData: map[string]string{"key": "robot", "secret": password}}
	if _, err := e.Kube.CoreV1().Secrets(e.Namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return err
	}
	ref := func(entry string) string { return fmt.Sprintf(`{"secretName":%q,"secretKey":%q}`, robotSecret, entry) }
	patch := fmt.Sprintf(`{"spec":{"bootstrapAPIKeys":[{"secretRef":{"key":%s,"secret":%s}}]}}`, ref("key"), ref("secret"))
	_, err := e.EMQX.AppsV2beta1().EMQXes(e.Namespace).Patch(ctx, e.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func writeRobot(ctx context.Context, e demo.Environment, password string) error {
	patch := fmt.Sprintf(`{"stringData":{"secret":%q}}`, password)
	_, err := e.Kube.CoreV1().Secrets(e.Namespace).Patch(ctx, robotSecret, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func rotateInMidEvacuation(ctx context.Context, e demo.Environment) error {
	keys := e.Latest().BootstrapAPIKeySecretName()
	patch := []byte(`{"data":null}`)
	if _, err := e.Kube.CoreV1().Secrets(e.Namespace).Patch(ctx, keys, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("empty the Secret of the API keys: %w", err)
	}
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, localkubetest.Patience, true, func(ctx context.Context) (bool, error) {
		secret, err := e.Kube.CoreV1().Secrets(e.Namespace).Get(ctx, keys, metav1.GetOptions{})
		return err == nil && len(secret.Data) > 0, err
	})
	if err != nil {
		return fmt.Errorf("wait for the keys to be put back: %w", err)
	}
	if err := writeRobot(ctx, e, "second-of-the-robot"); err != nil {
		return err
	}
	return robotKnown(ctx, e, "second-of-the-robot")
}

// robotKnown waits until EMQX takes the robot's password.
func robotKnown(ctx context.Context, e demo.Environment, password string) error {
	client := emqx.NewClient(nil)
	defer client.Close()
	failure := errors.New("no pod runs")
	err := wait.PollUntilContextTimeout(ctx, 500*time.Millisecond, localkubetest.Patience, true, func(ctx context.Context) (bool, error) {
		pods, err := e.Kube.CoreV1().Pods(e.Namespace).List(ctx, metav1.ListOptions{LabelSelector: v2beta1.LabelInstance + "=" + e.Name})
		if err != nil {
			return false, err
		}
		for _, pod := range pods.Items {
			if pod.Status.PodIP == "" {
				continue
			}
			address, err := e.State.Reach(pod.Status.PodIP)
			if err != nil {
				return false, err
			}
			node := emqx.Node{Name: pod.Name, URL: fmt.Sprintf("http://%s:18083", address)}
			if _, failure = client.Members(ctx, node, emqx.Credentials{Key: "robot", Secret: password}); failure == nil {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("wait until a node takes the new password: %w", errors.Join(err, failure))
	}
	return nil
}
