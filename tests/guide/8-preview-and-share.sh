FULL_URL="https://www.kaltura.com/index.php/extwidget/preview/partner_id/$KALTURA_PARTNER_ID/uiconf_id/$KALTURA_PLAYER_ID/entry_id/$KALTURA_ENTRY_ID/embed/dynamic"
curl -X POST "$KALTURA_SERVICE_URL/service/shortlink_shortlink/action/add" \
-d "ks=$KALTURA_KS" \
-d "format=1" \
-d "shortLink[objectType]=KalturaShortLink" \
-d "shortLink[systemName]=KMC-PREVIEW" \
-d "shortLink[fullUrl]=$FULL_URL" \
-d "shortLink[status]=2"
