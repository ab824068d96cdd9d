package operatorcmd

import (
	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi/apidoc"
)

func newOpenAPICommand() *cobra.Command {
	return caddymodule.WithExitCodes(&cobra.Command{
		Use:   "openapi",
		Short: "Prints the description of the REST interface",
		Long: `Prints the description of the REST interface of this version, as a document of
OpenAPI 3.1 in JSON.`,
		RunE: func(c *cobra.Command, _ []string) error {
			document, err := apidoc.OpenAPI()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(document)
			return err
		},
	}, 0, 0)
}
