package servers

import "os/exec"

func asOther(cmd *exec.Cmd, folder string) error {
	cmd.Dir = folder
	return nil
}
