package cli

import "github.com/spf13/cobra"

func (a *app) judgeCommand() *cobra.Command { return &cobra.Command{Use: "judge"} }
